"""Answers invocations, mirrors them to the shadow, and counts and captures them.

backends            answers calls by containers behind URLs
capture_journal     keeps captured lines until they are written, also over kill -9
captures            writes capture files while the server runs
completions         reads requests in the form of OpenAI's API, and writes simulated completions
connections         keeps connections to containers, and reads their answers within limits
continuous_batcher  steps one instance of a language model's server: batch, cache and queue
counts              counts requests by variant and minute
dynamic_batcher     batches the requests of one simulated instance
exchanges           sends requests to containers, and reads the heads of their answers
experiment_frames   builds the frames of a live experiment
frame_slices        encodes frames piece by piece, without holding the event loop
invoke              implements InvokeEndpoint
live                keeps the endpoints that serve in step with the control plane
loop_clock          measures the lag of the event loop, and lets no time-out expire by it
mirror              chooses which requests are copied, and sends the copies
pools               picks the variant and the instance for a request
real_time           tells simulated instances that batch what time it is
simulated           simulates the instances of a service model in real time, in place of containers
simulated_answers   forms what simulated instances answer: errors, echoes, completions
simulated_tokens    serves calls by simulated language models, whose tokens come in real time
spare_time          starts copies when the event loop has nothing else to do
streamed_bodies     measures a streamed answer while it passes: bytes, first part, tokens
"""
