"""Implements SageMaker's control-plane actions, without HTTP.

actions      dispatches a request to its action: validates, asks for the answer, records the event
endpoints    checks and answers the actions on endpoints and endpoint configurations
experiments  checks and answers the actions on inference experiments
models       checks and answers the actions on models and tags
pagination   filters, sorts and pages the List actions, with signed tokens
"""
