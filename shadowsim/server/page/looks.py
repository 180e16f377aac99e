"""Plans the looks at a live experiment, and has both sides compared at each of them.

A comparison that is looked at all the time finds differences that are none. So the looks are planned: at each eighth of
the schedule, and before that at each half of the first eighth, down to some ten seconds. The bounds are Pocock's, which
spend the level nearly evenly over time: a shadow that is much worse is found early, for an interval that is a fifth
wider at the end. What the page says stands until the next look.

A look sees the requests that arrived before it. It is made a little later, when most of them have been answered. The
plan is that of the schedule when the experiment is first watched; if the schedule changes, the plan stays. A look that
was due while nobody watched is left out, which makes the others only safer.

Requests are compared one by one as long as there are not too many of them, then by the minute. The comparison runs in a
process of its own with low priority (comparing.py), so that it delays no caller.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shadowsim.frames import ROLES
from shadowsim.server.data_plane.counts import MINUTE_S
from shadowsim.server.data_plane.experiment_frames import Logbook

MOST_ROWS = 1_000_000  # compared one by one
SHORTEST_S, EIGHTH, LATER = 10.0, 0.125, 0.1  # a look is made later by this part of its age, for answers that are due
MOST_LATER_S = 60.0  # no answer takes longer
WITHIN_S = 300.0  # of the process
COLUMNS = ("request", "arrival_s", "latency_s", "first_token_s", "output_tokens", "is_shadow", "failed")
_COMMAND = (sys.executable, "-m", "shadowsim.server.page.comparing")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LookPlan:
    """The moments of all looks, as fractions of a length.

    Attributes
    ----------
    length_s : float
        Age of the experiment at the last look, in wall seconds.
    fractions : tuple of float
    """

    length_s: float
    fractions: tuple[float, ...]

    @classmethod
    def of(cls, length_s: float) -> LookPlan:
        """Return the plan for a length."""
        early = [EIGHTH]
        while early[-1] * 0.5 * length_s >= SHORTEST_S:
            early.append(early[-1] * 0.5)
        return cls(length_s, (*reversed(early[1:]), *(EIGHTH * k for k in range(1, 9))))

    def age_s(self, look: int) -> float:
        """Return the age of the experiment at a look, numbered from 1."""
        return self.fractions[look - 1] * self.length_s

    def made_at_s(self, look: int) -> float:
        """Return the age at which a look is made."""
        age_s = self.age_s(look)
        return age_s + min(LATER * age_s, MOST_LATER_S)

    def due(self, reached_s: float, age_s: float) -> int:
        """Return the number of looks that can be made.

        Parameters
        ----------
        reached_s : float
            Age that the experiment has reached, at most that of its end.
        age_s : float
            Age that it would have now.
        """
        looks = range(1, len(self.fractions) + 1)
        return sum(self.age_s(look) <= reached_s and self.made_at_s(look) <= age_s for look in looks)


class Looks:
    """The looks at one experiment.

    Parameters
    ----------
    logbook : Logbook
    plan : LookPlan
    moments : sequence of str
        When each look is, in words.

    Attributes
    ----------
    plan : LookPlan
    look : int
        The last look that was made; 0 before the first.
    found : dict or None
        What comparing.py found at it.
    """

    def __init__(self, logbook: Logbook, plan: LookPlan, moments: Sequence[str]):
        self.plan, self.look = plan, 0
        self.found: dict[str, Any] | None = None
        self._logbook, self._moments = logbook, moments
        self._task: asyncio.Task[None] | None = None
        self._failed = 0  # the last look whose comparison failed

    def begin_due(self, reached_s: float, age_s: float) -> None:
        """Begin the latest look that is due, unless one is being made; for the ages see `LookPlan.due`."""
        due = self.plan.due(reached_s, age_s)
        if due > max(self.look, self._failed) and self._task is None:
            self._task = asyncio.create_task(self._make(due, age_s))

    async def close(self) -> None:
        """Give up a look that is being made."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _make(self, look: int, age_s: float) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="shadowsim-look-") as folder:
                question = {"look": look, "looks": self.plan.fractions, "moments": self._moments}
                ages_s = self.plan.age_s(look), age_s
                await asyncio.to_thread(_write, Path(folder), self._logbook, *ages_s, question)
                self.found, self.look = json.loads(await _answer(folder)), look
        except Exception:
            self._failed = look
            _LOG.exception("look %d at experiment %s failed", look, self._logbook.experiment)
        finally:
            self._task = None


def _write(folder: Path, logbook: Logbook, upto_s: float, age_s: float, question: dict[str, Any]) -> None:
    """Write what comparing.py reads: the question, and windows with rows or latencies of what arrived before an age."""
    (folder / "question.json").write_text(json.dumps(question))
    n_minutes = math.ceil(upto_s / MINUTE_S)
    windows = logbook.windows(n_minutes)
    is_last = windows["time_s"] == (n_minutes - 1) * MINUTE_S  # of which less than a minute may be over
    passed_s = min(max(age_s - (n_minutes - 1) * MINUTE_S, 1.0), MINUTE_S)
    windows.loc[is_last, "utilisation"] *= MINUTE_S / passed_s
    windows.to_parquet(folder / "windows.parquet")
    n_rows = sum(
        series.totals[role].n for series, role in zip(logbook.series, ROLES, strict=True) if role in series.totals
    )
    if n_rows > MOST_ROWS or logbook.n_forgotten:
        logbook.latency(n_minutes).to_parquet(folder / "latency.parquet")
        return
    n_read, parts = 0, []
    while read := logbook.columns_after(n_read, COLUMNS):
        n_read, columns = read
        before = columns["arrival_s"] < upto_s
        parts.append({name: values[before] for name, values in columns.items()})
    rows: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS} if parts else {}
    np.savez(folder / "rows.npz", **rows)


async def _answer(folder: str) -> bytes:
    """Run comparing.py on a folder, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND, folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            printed, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(error.decode("utf-8", "replace").strip().splitlines()[-1:] or "it ended without a word")
    return printed


def lower_priority() -> None:
    """Let every other process of the machine go first."""
    if hasattr(os, "nice"):
        os.nice(10)
