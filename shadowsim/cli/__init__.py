"""Holds the commands of `shadowsim`: each reads its options, calls one function and prints the answer.

compare         defines compare, noise-floor, agreement and benchmark-compare
completions     completes paths of settings, metrics and instance types in shells
console         prints texts in colour, JSON and CSV, and turns errors into one line and an exit status
main            defines the program and its commands init, validate, simulate, report and instances
load            defines load, which measures a real service
measure         defines measured, calibrate, predict and step-model
option_parsers  reads the values of options, and names the option when one is wrong
options         declares the options that several commands share, and makes the scenario of a command line
outputs         writes saved runs and HTML pages
plan            defines size, plan and sweep
reference       defines schema and explain, the reference of a scenario
serve           defines serve, which runs the local stand-in for SageMaker
"""
