"""Answers invocations and mirrors them to the shadow."""
