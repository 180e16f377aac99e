"""Generates load in an open loop: plans, sends and records requests, and judges whether it kept up.

answer_streams  reads streamed answers: first tokens, and how many there were
bodies          reads or draws the bodies of requests
failures        says why a request failed
load_frames     lays out the rows of a load run as frames
load_processes  runs a load job in one or several processes
load_records    keeps a row per request of a load run
load_run        holds, saves and reads what a load run measured
load_schedule   plans a load run: its scenario, moments and bodies
pacer           calls a function at planned moments
saturation      judges whether a load generator kept up
sender          sends requests at planned times, and notes when each was sent and answered
targets         forms and signs the requests of a load run
"""
