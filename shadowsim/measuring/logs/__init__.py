"""Reads what people have of real services: logs, results of load tools, exports of CloudWatch.

access_logs         reads access logs of nginx and Apache
cloudwatch_exports  reads exports of CloudWatch: counts, means and percentiles of periods
jmeter              reads JMeter's results in CSV and XML
k6                  reads k6's points in CSV and JSON lines
language_models     reads results of inference-perf and AIPerf
load_balancer       reads access logs of AWS's Application Load Balancer
log_lines           reads lines, CSV and JSON one by one, and counts the damaged ones
log_times           reads times in every form of the logs, as nanoseconds
nginx_formats       turns an nginx log_format into a pattern
own_files           reads SageMaker's captures, folders of frames, and tables of requests
percentile_text     reads the text of wrk and wrk2, and percentile spectra
reading             recognises a file and calls its reader
request_columns     collects requests column by column, and makes a measurement of them
run_totals          makes a measurement of totals and quantiles of a whole run
vegeta              reads vegeta's results and reports
"""
