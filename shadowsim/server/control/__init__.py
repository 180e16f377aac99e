"""Implements SageMaker's control-plane actions, without HTTP."""
