"""Simulates a scenario: arrays into the compiled kernel, frames out."""
