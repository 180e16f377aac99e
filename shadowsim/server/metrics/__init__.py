"""Publishes what was counted: CloudWatch's API and Prometheus."""
