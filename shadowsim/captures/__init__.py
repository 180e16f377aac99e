"""Reads SageMaker's data-capture files and compares the answers in them."""
