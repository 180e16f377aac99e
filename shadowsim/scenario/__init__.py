"""Reads a scenario file: traffic, services, endpoint, mirror and run."""
