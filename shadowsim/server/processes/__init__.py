"""Runs the server in processes."""
