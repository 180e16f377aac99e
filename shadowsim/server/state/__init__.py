"""Keeps the account's state: a log of events in SQLite, and the resources folded from it.

account          defines the world: frozen records of models, configurations, endpoints and experiments
clock            computes scaled time, which survives restarts
database         opens the SQLite file, and finds damage that SQLite passes over
destinations     writes objects to capture destinations in folders or S3
events           applies accepted events to the world
fleet            resolves configurations to fleets, and derives those that experiments deploy
quotas           enforces quotas on instances and request rates
scaling          defines the account's auto scaling: scalable targets, policies and activities
snapshot         converts the account's records to rows and back
store            writes the event log and its snapshots, and makes the world of them at every start
target_tracking  decides when target tracking changes a number of instances
token_bucket     limits rates of requests and of bytes
transitions      advances endpoints and experiments to a moment
undocumented     lists options for behaviour that AWS does not document
views            describes endpoints for the data plane, and takes the results of /ping
"""
