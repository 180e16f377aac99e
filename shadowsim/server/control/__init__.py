"""Implements the control-plane actions of SageMaker and Application Auto Scaling, without HTTP.

actions      dispatches a request to its action: validates, asks for the answer, records the event
endpoints    checks and answers the actions on endpoints and endpoint configurations
experiments  checks and answers the actions on inference experiments
models       checks and answers the actions on models and tags
pagination   filters, sorts and pages the List actions, with signed tokens
scaler       scales simulated variants by the policies of Application Auto Scaling, as the simulation does
scaling      validates and answers the actions of Application Auto Scaling on variants
"""
