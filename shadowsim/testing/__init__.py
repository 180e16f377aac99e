"""Serves test suites: a pytest plugin, and comparisons of pytest-benchmark files."""
