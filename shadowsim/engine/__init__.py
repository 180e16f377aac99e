"""Simulates a scenario: turns it into arrays, runs the compiled kernel, and returns frames.

_event_kernel  simulates one pool event by event: batches, auto scaling, outages and retries
_prefix_kernel keeps the blocks that prompts begin with in each engine's prefix cache
_token_kernel  simulates a language model's server, whose requests join a running batch
_kernel        simulates requests through both pools that need no events
arrivals       computes arrival times, a batch of windows at a time
columns        converts a scenario into the numbers that the kernel reads
event_run      runs one evented side of a run, with arrays that grow
executors      runs many tasks on threads or on an executor, a bounded number at a time
law_tables     tabulates a law's quantiles for the kernel
parallel       runs one simulation on several workers with identical results
progress       shows how far a run is, how long it takes, and that code is compiled
replicate      simulates a scenario several times with independent draws, and summarises the runs
resampling     draws other traces that might as well have been recorded, by a stationary block bootstrap
run_frames     builds the three frames from the kernel's counts
run_state      holds the arrays that change during a run
simulate       simulates a scenario: the public function, and how many workers it uses
"""
