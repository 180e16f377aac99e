"""Holds what SageMaker's API says of a shadow test: its request, its statuses, its instances.

cloudformation    resolves references in templates, as far as they are known before a deployment
contract          checks a request against botocore's model, in AWS's sentences, and describes it in JSON Schema
destinations      parses capture destinations into buckets and key prefixes
endpoint_configs  turns an endpoint configuration with a shadow variant into a request
existing          asks AWS for an experiment that exists
experiment        reads a CreateInferenceExperiment request into a frozen `Experiment`
instances         looks up instance types, prices and default quotas, and describes an experiment with its cost
lifecycle         tabulates the statuses of experiments and endpoints, and applies events and the clock to them
other_documents   recognises documents that resemble a request, and tells what to pass instead
request_sources   finds a request in the documents that people keep it in
terraform         finds experiments and endpoint configurations in Terraform's JSON
"""
