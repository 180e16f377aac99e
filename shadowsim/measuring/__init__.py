"""Measures real services, reads what others measured, and fits models of services to it.

batch_fit         finds dynamic batchers in a run: size, delay, workers, and the time of a batch by its size
calibrate         calibrates a service model to a measured run, and says what the run leaves open: `calibrate`
calibration       holds a calibrated service model: its block, intervals, and what the data left open
drift             tells how much a server's speed drifts, so that intervals allow for that of another run
fifo_calibration  describes workers or a batcher that were fitted, with intervals and what is left open
fifo_fit          finds the workers, overhead and slowdown of FIFO instances by likelihood
fifo_starts       reconstructs waits and services from when requests arrived and were answered
generator         generates load in an open loop
law_fit           chooses a law for measured times: the best of the named ones, or a table of quantiles
load              loads a real service with the traffic of a scenario
logs              reads logs, results of load tools and exports of CloudWatch
measurement       holds what was measured on a real service: requests one by one, or counts and quantiles alone
overview          describes a measurement: its span, rate, latencies, errors, and what it lacks
predict           predicts a measured run with a calibrated service, and judges whether the model is right: `predict`
rehearsal         puts a live shadow test beside its simulation and its callers' measurement: `rehearsal`
step_columns      finds the columns of a table of step times or load stages, and its configurations
step_model        fits the step times of a language model's server, and tells what the fit leaves open
step_rows         fits step times to single measurements of prefill and decode
step_stages       computes step times from stages of a load test, and predicts the latency at another rate
token_fit         fits the step times of a language model's server to requests with first and last tokens
token_log         holds requests in tokens as fits of step times take them, and the cells that are fitted
token_steps       counts what the steps of each sequence worked on, from the times of single tokens
traffic_table     makes of a measurement the table that a scenario replays
wake_fit          fits how much longer a service takes that finds its instance idle
weighted_fit      solves least squares of relative errors without negative coefficients
window_fit        estimates a service from counts and percentiles a period, without single requests
"""
