"""Holds what SageMaker's API says: requests, statuses, instance types."""
