"""Answers invocations, mirrors them to the shadow, and counts and captures them.

backends           answers calls by containers behind URLs or by simulated instances
capture_journal    keeps captured lines until they are written, also over kill -9
captures           writes capture files while the server runs
connections        keeps connections to containers, and reads their answers within limits
counts             counts requests by variant and minute
experiment_frames  builds the frames of a live experiment
frame_slices       encodes frames piece by piece, without holding the event loop
invoke             implements InvokeEndpoint
live               keeps the endpoints that serve in step with the control plane
loop_clock         measures the lag of the event loop, and lets no time-out expire by it
mirror             chooses which requests are copied, and sends the copies
pools              picks the variant and the instance for a request
"""
