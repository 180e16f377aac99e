"""Fits models of services to what was measured on real ones.

measurement    holds what was measured on a real service: requests one by one, or counts and quantiles alone
step_columns   finds the columns of a table of step times or load stages, and its configurations
step_model     fits the step times of a language model's server, and tells what the fit leaves open
step_rows      fits step times to single measurements of prefill and decode
step_stages    computes step times from stages of a load test, and predicts the latency at another rate
weighted_fit   solves least squares of relative errors without negative coefficients
"""
