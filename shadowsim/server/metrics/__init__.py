"""Publishes the counts of requests as CloudWatch and Prometheus metrics.

cloudwatch         answers CloudWatch's actions on the metrics of variants: statistics, data and lists
cloudwatch_wire    parses CloudWatch's requests, and speaks its older query protocol
metric_data        answers GetMetricData: queries of metrics, and expressions on them
metric_functions   evaluates the expressions of metric math on metrics of one request
metric_math        parses the expressions of CloudWatch's metric math
metric_statistics  defines the metrics of variants, and their statistics by period
prometheus         renders metrics in Prometheus' text format
"""
