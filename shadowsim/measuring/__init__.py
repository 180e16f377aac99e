"""Reads what was measured on real services, and fits models of services to it.

logs           reads logs, results of load tools and exports of CloudWatch
measurement    holds what was measured on a real service: requests one by one, or counts and quantiles alone
overview       describes a measurement: its span, rate, latencies, errors, and what it lacks
step_columns   finds the columns of a table of step times or load stages, and its configurations
step_model     fits the step times of a language model's server, and tells what the fit leaves open
step_rows      fits step times to single measurements of prefill and decode
step_stages    computes step times from stages of a load test, and predicts the latency at another rate
traffic_table  makes of a measurement the table that a scenario replays
weighted_fit   solves least squares of relative errors without negative coefficients
"""
