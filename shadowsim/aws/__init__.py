"""Holds what SageMaker's API says of a shadow test: its request, its statuses, its instances.

contract         checks a request against botocore's model, in AWS's sentences
destinations     parses capture destinations into buckets and key prefixes
experiment       reads a CreateInferenceExperiment request into a frozen `Experiment`
instances        looks up instance types, prices and default quotas, and describes an experiment with its cost
lifecycle        tabulates the statuses of experiments and endpoints, and applies events and the clock to them
other_documents  recognises documents that resemble a request, and tells what to pass instead
"""
