"""Publishes the counts of requests as CloudWatch and Prometheus metrics.

cloudwatch       answers CloudWatch's actions on the metrics of variants
cloudwatch_wire  parses CloudWatch's requests, and speaks its older query protocol
prometheus       renders metrics in Prometheus' text format
"""
