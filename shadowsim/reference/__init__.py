"""Describes a scenario's keys, from the declarations that read them.

explain  prints a key's entry by its path, or by an alias of it
schema   returns the JSON Schema of a scenario
"""
