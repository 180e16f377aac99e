"""Traffic: when requests come, and how large they are.

===========  =========================================================================================================
poisson      at `rate_per_s`, or by a `profile`
constant     evenly spaced, likewise
gamma        likewise, with independent gamma gaps of squared coefficient of variation `scv` (1 is Poisson; 100 is
             bursts with long pauses)
mmpp         Poisson with a rate that jumps (modulation.py): `rates_per_s`, a rate a state, and `mean_sojourn_s`, one
             for all or one a state
trace        replays a file (traces.py): `path`, `time_column`, `speed`, `repeat`
===========  =========================================================================================================

A rate is flat (`rate_per_s`) or has a `profile` (profiles.py). A profile says its own rates, and then no `rate_per_s`
is needed. With one, the profile gives only the shape: all of it is multiplied so that its *mean over the horizon* is
`rate_per_s`. That is one rule for all kinds, and makes `--rate 800` mean 800 requests a second whatever the shape. For
mmpp it is likewise the mean in the long run that becomes `rate_per_s`; that of a run varies with the path. A trace has
its own rate, which `speed` multiplies.

The clock of gamma gaps under a profile is the expected number of requests so far: gaps are stretched where the rate is
low.

A list of such blocks is their superposition: the requests of all of them, in order of time. `request_bytes`,
`response_bytes` and `sessions` are then those of all requests alike, and each block that is to say them must say the
same. Rates are set block by block (`traffic.0.rate_per_s`).

The clock of a diurnal profile is that of the experiment: its Schedule's StartTime in UTC. Without one, t = 0 is a
Monday at 00:00.

The package ships one trace, `"path": "builtin:trace_small"`: 500 requests in about eleven minutes with the columns of
the Azure LLM traces. It is synthetic and ours: numpy's default_rng(20240607) drew, in this order, 500 exponential gaps
of mean 1.5 s (those of requests 200 to 299, counted from 0, divided by 4: a burst), context tokens as a rounded
lognormal with median 1,200 and sigma 0.9 and generated tokens as a geometric with mean 40, both clipped to 1..8,000;
the first gap is left out, times begin at 2024-03-04 09:00:00 and are rounded down to 100 ns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from shadowsim.errors import InputError
from shadowsim.scenario.arrivals import Traffic
from shadowsim.scenario.datafiles import resolve
from shadowsim.scenario.fields import Block
from shadowsim.scenario.laws import MAX_SCV, Law, parse_law
from shadowsim.scenario.modulation import mmpp_rate
from shadowsim.scenario.rates import parse_profile

RATED = ("rate_per_s", "profile")
# What each process takes beside the keys that all share.
KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "poisson": RATED,
        "gamma": (*RATED, "scv"),
        "mmpp": ("rate_per_s", "rates_per_s", "mean_sojourn_s"),
        "constant": RATED,
        "trace": ("path", "time_column", "speed", "repeat"),
    }
)
SHARED = ("request_bytes", "response_bytes", "sessions")
LATER = ("retries", "resample")
MAX_REPEAT = 1_000_000
MAX_SESSIONS = 2**31 - 1
MAX_STATES = 100
MAX_PARTS = 100


def parse_traffic(value: object, path: str = "traffic", base_dir: Path | None = None) -> Traffic:
    """Make traffic of its JSON value.

    Parameters
    ----------
    value : dict or list of dict
        Its keys are in the module's docstring; `request_bytes` and `response_bytes` are laws (laws.py).
    path : str
        Where it stands, for errors.
    base_dir : Path, optional
        What the files it names are relative to; by default the working directory.

    Raises
    ------
    InputError
        When a key is unknown, not built yet or foreign to the process, or a value breaks its constraint. Trace
        files are not read here but by `Traffic.trace`.
    """
    if isinstance(value, list):
        return _superposition(value, path, base_dir or Path())
    return _parse_block(Block.of(value, path), base_dir or Path())


def _parse_block(block: Block, base_dir: Path) -> Traffic:
    every = dict.fromkeys(key for keys in KEYS.values() for key in keys)
    block.only(("process", *SHARED, *every), LATER)
    process = block.choice("process", None, list(KEYS))
    for key in every:
        if block.has(key) and key not in KEYS[process]:
            *others, last = [name for name in KEYS if key in KEYS[name]]
            owners = f"{', '.join(others)} and {last}" if others else last
            hint = "; speed sets the rate of a trace" if (process, key) == ("trace", "rate_per_s") else ""
            what = f"belongs to {owners} traffic, not to process {process}"
            raise InputError(block.at(key), what, block.values[key], hint=hint)
    traffic = _with_sizes(Traffic(process, path=block.path, block=block.values), block, base_dir)
    if process == "trace":
        return replace(
            traffic,
            file=resolve(block.text("path"), base_dir),
            time_column=block.text("time_column") if block.has("time_column") else None,
            speed=block.number("speed", 1.0, above=0.0),
            repeat=block.integer("repeat", 1, least=1, most=MAX_REPEAT),
        )
    if process == "mmpp":
        rate, rates, sojourns = _states(block)
        return replace(traffic, rate_per_s=rate, rates_per_s=rates, mean_sojourn_s=sojourns)
    profile = parse_profile(block.block("profile")) if block.has("profile") else None
    # Without a profile the rate is required: `need` says so.
    rate = block.number("rate_per_s", above=0.0) if profile is None or block.has("rate_per_s") else None
    gap_law = _gap_law(block) if process == "gamma" else None
    return replace(traffic, rate_per_s=rate, profile=profile, gap_law=gap_law)


def _superposition(values: list[object], path: str, base_dir: Path) -> Traffic:
    if not 1 <= len(values) <= MAX_PARTS:
        raise InputError(path, f"must be an object {{...}} or a list of 1 to {MAX_PARTS} of them", values)
    blocks = [Block.of(value, f"{path}.{i}") for i, value in enumerate(values)]
    for key in SHARED:
        for block in blocks:
            if block.values.get(key) != blocks[0].values.get(key):
                what = "must be the same in every block of a list: it is drawn for all requests alike"
                raise InputError(block.at(key), what, block.values.get(key))
    parts = tuple(
        _parse_block(Block(block.path, {k: v for k, v in block.values.items() if k not in SHARED}), base_dir)
        for block in blocks
    )
    return _with_sizes(Traffic("superposition", parts=parts, path=path, block=values), blocks[0], base_dir)


def _with_sizes(traffic: Traffic, block: Block, base_dir: Path) -> Traffic:
    return replace(
        traffic,
        request_bytes=_bytes(block, "request_bytes", traffic.process, base_dir),
        response_bytes=_bytes(block, "response_bytes", traffic.process, base_dir),
        sessions=_sessions(block, traffic.process),
    )


def _gap_law(block: Block) -> Law:
    if block.has("scv") and block.values["scv"] == 0:
        raise InputError(block.at("scv"), "must be > 0: gaps without variance are process constant", 0)
    return Law("gamma", 1.0, block.number("scv", above=0.0, most=MAX_SCV))


def _states(block: Block) -> tuple[float | None, tuple[float, ...], tuple[float, ...]]:
    """Return the wanted mean rate, if any, and each state's rate and mean sojourn."""
    rates = block.numbers("rates_per_s", least=0.0)
    n = len(rates)
    if not 2 <= n <= MAX_STATES or not any(rates):
        what = f"must have 2 to {MAX_STATES} rates, one of them > 0"
        raise InputError(block.at("rates_per_s"), what, block.values["rates_per_s"])
    if isinstance(block.need("mean_sojourn_s"), list):
        sojourns = block.numbers("mean_sojourn_s", above=0.0)
        if len(sojourns) != n:
            raise InputError(block.at("mean_sojourn_s"), f"must be one number, or one for each of {n} rates", sojourns)
    else:
        sojourns = (block.number("mean_sojourn_s", above=0.0),) * n
    if not block.has("rate_per_s"):
        return None, rates, sojourns
    wanted, mean = block.number("rate_per_s", above=0.0), mmpp_rate(rates, sojourns)
    # Rates that differ by hundreds of orders of magnitude have a mean of 0, or are scaled past all numbers.
    scaled = tuple(rate / mean * wanted for rate in rates) if mean > 0.0 else (math.inf,)
    if not all(map(math.isfinite, scaled)):
        raise InputError(block.at("rate_per_s"), "must be a mean that rates_per_s can be brought to", wanted)
    return wanted, scaled, sojourns


def _bytes(block: Block, key: str, process: str, base_dir: Path) -> Law | None:
    if not block.has(key):
        return None
    law = parse_law(block.values[key], block.at(key), "bytes", base_dir)
    if law.kind == "linear" and process != "trace":
        raise InputError(block.at(key), _needs_trace("a law of trace columns", process), law.block)
    return law


def _sessions(block: Block, process: str) -> int | str | None:
    if not block.has("sessions"):
        return None
    if not isinstance(block.values["sessions"], str):
        return block.integer("sessions", least=1, most=MAX_SESSIONS)
    if process != "trace":
        raise InputError(block.at("sessions"), _needs_trace("a column", process), block.values["sessions"])
    return block.text("sessions")


def _needs_trace(what: str, process: str) -> str:
    alone = ", and no list," if process == "superposition" else ""
    return f"needs trace traffic{alone} for {what}"
