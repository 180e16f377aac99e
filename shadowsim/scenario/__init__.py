"""Reads a scenario file: traffic, services, endpoint, mirror and run.

batching         reads dynamic batchers
defaults         holds default values, the built-in scenario, and the one that a plain request stands for
fields           reads and checks values of JSON objects and parameters of functions
laws             defines distributions of service times and sizes, with their quantiles and moments
log_forms        recognises logs, results of load tools and exports of CloudWatch by their content
outages          reads outages of instances, listed or by chance
paths            finds and changes values in a scenario's JSON document by dotted paths
precision        reads the warm-up, and the precision that replications are to reach
rates            computes rates that change over time: profiles, and paths and moments of an MMPP
reading          reads the blocks that depend on each other, and checks them against each other
relaxation       computes how fast a pool's queue forgets its past
resample         describes how a trace is resampled: the length of the blocks of a stationary bootstrap
retries          reads the retries of the callers, by generation of boto3
routing          names the routing strategies
scaling          reads auto scaling policies
scenario         defines `Scenario`, which holds all of it and can be edited and saved
service          reads service models: time, workers, queue limit, slowdown, errors, and how instances change
step_models      looks up presets of the step times of language models
table_files      reads tables: CSV of common dialects, Parquet, JSON lines and arrays
target_tracking  decides when target tracking changes a number of instances, point by point
token_times      computes the work of requests in tokens, and how long they take alone
tokens           reads language models that batch continuously: requests in tokens, and the time of a step
trace_times      finds the arrivals in a trace's table, and states how it read them
traces           reads traces: recorded arrivals with the columns beside them
traffic          describes arrival processes, body sizes, sessions and retries
"""
