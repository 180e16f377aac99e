"""Prepares the process of a server: the limit of open files, and the collection of garbage."""

from __future__ import annotations

import gc
import os

_MOST_FILES, _FIRST_FILES = 65_536, 8_192
_GC_THRESHOLDS = 500, 3, 500  # frequent and so short collections of young objects, hardly any of old ones


def settle_memory() -> None:
    """Collect garbage seldom from now on.

    A collection of all objects would delay every caller by tens of ms. Freezing spares the loaded modules, and high
    thresholds suffice for the rest: reference counts free what copies hold, and few cycles grow old.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def allow_connections() -> None:
    """Raise the limit of open files as far as the system allows: a caller takes two, a copy one."""
    try:
        import fcntl
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # Linux stalls a process with threads for some 15 ms whenever it doubles the table of files: grow it once, now.
    with open(os.devnull) as file:
        os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, min(wanted, _FIRST_FILES) - 1))
