"""Builds files as pytest-benchmark writes them."""


def document(data=None, name="a.py::test_a", machine="m", **stats):
    """Return a file of one benchmark, with the seconds of its rounds or with their `stats` alone."""
    stats = stats if data is None else stats | {"data": data}
    return {
        "machine_info": {"node": machine, "machine": "x86_64", "python_version": "3.11.9", "cpu": {"brand_raw": "CPU"}},
        "benchmarks": [{"fullname": name, "name": name, "stats": stats, "extra_info": {}}],
        "version": "5.3.1",
    }
