"""Runs a local stand-in for SageMaker, for boto3, the AWS CLI and the callers of an endpoint.

The server has two planes. The control plane (control/ and state/) accepts or refuses SageMaker's actions, without HTTP
and without waiting. The data plane (data_plane/) answers invocations; it learns through state/views.py what an
endpoint is at a moment.

control     checks and answers the control-plane actions
data_plane  invokes containers or simulated backends, mirrors requests, captures both
http        guards the port: hosts, bodies, signatures
metrics     publishes CloudWatch's API and Prometheus' page
page        shows live experiments in a browser
state       keeps the event log and the account folded from it
app         serves all of these on one port
log_format  formats the lines of the log
own_process prepares the process of a server: open files, garbage
processes   runs the server in several processes on one port
settings    defines the options of the server
"""
