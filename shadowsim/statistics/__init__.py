"""Computes estimates with honest intervals from the frames of a run.

warm_up              finds the beginning of a run that its figures leave out, by MSER-5 or as asked, and cuts it off
terms                declares margins, confidence and the codes of outcomes, and reads them from arguments
samples              holds latencies section by section, as counts in buckets or as single values
sections             cuts runs into sections, from whichever frames there are
batch_means          joins sections to uncorrelated batches, whose scatter gives the standard error
estimates            computes quantiles, means and shares with intervals, and the intervals of differences and ratios
sequential_looks     computes the bounds of tests that are looked at while they run
stop_early           advises at a look whether to stop a test, and what more data would add
loads                notes unequal loads of the two sides, which make one faster without being better
metric_rows          builds the row of each metric: estimates, interval and outcome
comparison           compares shadow and source metric by metric: `compare`
standard_errors      computes the standard errors of a run's figures
enough_replications  decides how many runs make a figure as precise as was asked for
"""
