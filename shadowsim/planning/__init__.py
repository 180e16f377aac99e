"""Answers questions by simulating: size, plan, sweep, noise floor."""
