"""Answers questions about a shadow test by simulating it: its pools, length, share and cost.

capacity          finds the greatest rate that the given pools hold, with an interval
capacity_search   searches one pool for the greatest rate
costs             computes the cost of a test, and reads prices
enough_instances  simulates an overloaded pool with the instances that would just keep up
load              computes the load of a pool, and how long a run must be
noise_floor       measures the differences that a test shows between a variant and itself
plan              plans a test: the share and duration that show an effect, and their cost
plan_designs      chooses the pool of each share, and the part of each duration that is rehearsed
plan_effects      parses an effect, and finds the service times that cause it
plan_power        estimates how often a test finds an effect, from its rehearsals
plan_rehearsals   simulates a test many times, and judges it as `compare` would
queueing_theory   computes what queueing theory says of a pool, where a formula holds
run_comparison    compares two runs, asserts that there is no regression, and compares the sides at the same load
scaling_documents writes scaling policies as the documents that AWS takes
sheet             holds the frames of `size` and `plan`, and picks a plan's best row
size              finds the fewest instances of each type that meet goals, the scaling policy, and their cost
size_policies     finds the cheapest scaling policy of one pool and type
size_rows         makes the rows of `size`
size_search       searches for the fewest instances of one pool and type
slo               parses goals, and measures them in runs
sweep             simulates every cell of a grid of settings
sweep_cache       stores the rows of finished runs in a directory
sweep_grid        builds the cells of a grid
"""
