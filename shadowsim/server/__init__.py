"""The rehearsal server: what stands where SageMaker stands, for boto3, the AWS CLI and a container's callers.

Two planes that know one seam. *Control* (store, control and what they stand on) accepts or refuses SageMaker's actions;
there is no HTTP in it, and nothing in it waits. The *data path* (app, runtime, mirror, backends, captures, metrics)
answers invocations, and asks control through views.py what an endpoint is at a moment.
"""
