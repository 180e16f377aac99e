"""Serves test suites: a pytest plugin, and comparisons of pytest-benchmark files.

benchmark_comparison  compares the timings of two versions by their ranks
benchmark_files       reads the files that pytest-benchmark saves
pytest_plugin         provides fixtures and marks that simulate shadow tests within a test suite
"""
