"""Keeps the counts that all processes report, and a journal that survives kill -9.

Batches are written to the journal before they are acknowledged. After JOURNAL_BYTES a checkpoint of all counts takes
its place; both are files in the folder of this run. What is read again is a checkpoint and the batches after it, so the
time that a restart takes has a limit. Logbooks are opened by an entry of the journal, too, and samples are entries.

A copy has two reports: the worker's, that it was handed to the mirror process, and the mirror's, that it has ended. If
the mirror process is started again, the copies whose second report is missing were lost with it, and are counted so.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from shadowsim.errors import ShadowsimError
from shadowsim.frames import SERVER_CRASH
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.live import LiveEndpoint, LiveEndpoints
from shadowsim.server.data_plane.mirror import RequestMirror
from shadowsim.server.processes.links import append_framed, encoded, framed, unframed
from shadowsim.server.processes.reports import (
    COPIED,
    COPY_ENDED,
    COUNTED,
    LEFT_OUT,
    LINES_LOST,
    LOST,
    SERVED,
    Count,
    served_request,
)
from shadowsim.server.state.views import EndpointView

if TYPE_CHECKING:
    from shadowsim.server.data_plane.captures import CaptureWriter

JOURNAL_BYTES = 32 * 2**20
_BATCH, _STARTED, _OPENED, _SAMPLED, _LINES = range(5)
_OF_VARIANTS = (SERVED, LOST, COPIED)  # counts with endpoint, variant and experiment
_LOG = logging.getLogger(__name__)
_Copy = tuple[str, int]  # the worker that sent it, with its generation, and its number


@dataclass(slots=True)
class ReportedCounts:
    """What is known of the reports of one process.

    Attributes
    ----------
    generation : int
        Of the process that reports.
    number : int
        Of its last batch.
    n_counts : int
        Counts that it has reported since the server's start, over all generations.
    n_lost : int
        Counts that were lost with earlier generations, or left out.
    """

    generation: int = 0
    number: int = 0
    n_counts: int = 0
    n_lost: int = 0


@dataclass(slots=True)
class _Copies:
    """Copies with one of two reports."""

    handed: dict[_Copy, tuple[int, Count]] = field(default_factory=dict)  # generation of the mirror, and the report
    ended: dict[_Copy, None] = field(default_factory=dict)


class Ledger:
    """The counts of a server in processes.

    Parameters
    ----------
    folder : Path
        For the journal and the checkpoint.
    captures : CaptureWriter
        Its counts of lost lines are kept, too.

    Attributes
    ----------
    reports : dict of str to ReportedCounts
        By name of the process.
    endpoints : LiveEndpoints
        Where is counted, once it has begun.
    """

    endpoints: LiveEndpoints

    def __init__(self, folder: Path, captures: CaptureWriter):
        self.reports: dict[str, ReportedCounts] = {}
        self._folder, self._captures = folder, captures
        self._copies, self._mirror_generation = _Copies(), 0
        self._stream: BinaryIO | None = None
        self._segment = self._n_bytes = 0
        self._latest_begin_s = math.inf  # of a logbook that is opened now

    def begin(self, endpoints: LiveEndpoints) -> None:
        """Count in live endpoints, beginning with what was counted before."""
        self.endpoints = endpoints
        self._restore()
        path = self._folder / f"counts-{self._segment}"
        self._n_bytes = self._replay(path)
        self._stream = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._stream.truncate(self._n_bytes)
        self._stream.seek(self._n_bytes)

    def close(self) -> None:
        """Close the journal."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def make(self, view: EndpointView, mirror: RequestMirror) -> LiveEndpoint:
        """Return a live endpoint whose samples are kept here."""
        return _KeptEndpoint(view, mirror, self)

    def open_logbook(self, **fields: Any) -> Logbook:
        """Return a new logbook."""
        fields["began_s"] = min(fields["began_s"], self._latest_begin_s)
        self._write((_OPENED, fields))
        return Logbook(**fields)

    def sample(self, endpoint: str, *sample: Any) -> None:
        """Keep a sample of an endpoint's variant."""
        self._write((_SAMPLED, endpoint, *sample))

    def start(self, process: str, generation: int, n_reported: int) -> None:
        """Note that a process reports from now on; what an earlier generation has not reported by now is lost.

        Parameters
        ----------
        process : str
        generation : int
        n_reported : int
            Counts that its generations up to now have made.
        """
        if self.is_new(process, generation):
            self._enter((_STARTED, process, generation, n_reported))

    def is_new(self, process: str, generation: int) -> bool:
        """Return whether a generation of a process has not started to report."""
        known = self.reports.get(process)
        return known is None or known.generation != generation

    def take(self, process: str, number: int, counts: Sequence[Count]) -> bool:
        """Take a batch of a process that has started, and return whether it is new."""
        if process not in self.reports or number <= self.reports[process].number:
            return False
        for count in counts:
            if count[0] in _OF_VARIANTS and count[3] is not None and self._logbook(count[1], count[3:5]) is None:
                self._follow(count)
        self._enter((_BATCH, process, number, counts))
        return True

    def lose_lines(self, endpoint: str, n: int, why: str) -> None:
        """Count captured lines as lost."""
        self._enter((_LINES, endpoint, n, why))

    def _enter(self, entry: tuple[Any, ...]) -> None:
        self._write(entry)
        self._apply(entry)
        if self._n_bytes > JOURNAL_BYTES:
            self._check_point()

    def _write(self, entry: tuple[Any, ...]) -> None:
        if self._stream is None:
            return  # while the journal is read
        try:
            self._n_bytes = append_framed(self._stream, encoded(entry), self._n_bytes)
        except OSError as error:
            _LOG.error("the journal of counts cannot be written, so a crash would lose them: %s", error)

    def _replay(self, path: Path) -> int:
        """Apply the entries of a journal, and return their length; the last one may be torn."""
        n_bytes = 0
        for entry in unframed(path.read_bytes() if path.exists() else b""):
            self._apply(entry)
            n_bytes += len(framed(encoded(entry)))
        return n_bytes

    def _apply(self, entry: tuple[Any, ...]) -> None:
        kind, *rest = entry
        if kind == _BATCH:
            process, number, counts = rest
            known = self.reports[process]
            known.number = number
            for count in counts:
                self._count(process, known, count)
        elif kind == _STARTED:
            process, generation, n_reported = rest
            known = self.reports.setdefault(process, ReportedCounts())
            known.n_lost += max(n_reported - known.n_counts - known.n_lost, 0)
            known.generation, known.number = generation, 0
            self._restart(process, generation)
        elif kind == _OPENED:
            fields = rest[0]
            live = self._live(fields["endpoint"])
            self.endpoints.end_logbook(live)
            live.logbook = Logbook(**fields)
        elif kind == _SAMPLED:
            LiveEndpoint.take_sample(self._live(rest[0]), *rest[1:])
        else:
            self._captures.lose(*rest)

    def _count(self, process: str, known: ReportedCounts, count: Count) -> None:
        kind = count[0]
        if kind in (LEFT_OUT, LINES_LOST):
            if kind == LEFT_OUT:
                known.n_lost += count[1]
            else:
                self._captures.lose(count[1], count[2], "the process that writes them was too slow")
            return
        known.n_counts += kind in COUNTED
        if kind == SERVED:
            live, variant, logbook = self._place(count)
            served = served_request(count)
            if served.is_copy:
                live.shadows.add(variant)
            live.record(logbook, variant, _not_before(logbook, served))
        elif kind == LOST:
            self._lose(count, count[6])
        elif kind == COPIED:  # endpoint, variant, experiment, created_s, arrival_s, generation of the mirror, number
            copy = f"{process}/{known.generation}", count[7]
            if copy in self._copies.ended:
                del self._copies.ended[copy]
            elif count[6] < self._mirror_generation:
                self._lose(count, SERVER_CRASH)
            else:
                self._copies.handed[copy] = count[6], count
        elif kind == COPY_ENDED:  # worker, number
            copy = count[1], count[2]
            if self._copies.handed.pop(copy, None) is None:
                self._copies.ended[copy] = None

    def _restart(self, process: str, generation: int) -> None:
        if process == "mirror":
            self._mirror_generation = generation
            copies = self._copies.handed
            for copy in [copy for copy, (of, _) in copies.items() if of < generation]:
                self._lose(copies.pop(copy)[1], SERVER_CRASH)
        else:  # what an earlier generation has not reported will never be
            worker = f"{process}/{generation}"
            ended = self._copies.ended
            for copy in [copy for copy in ended if copy[0].startswith(f"{process}/") and copy[0] != worker]:
                del ended[copy]

    def _lose(self, count: Count, cause: str) -> None:
        live, variant, logbook = self._place(count)
        arrival_s = count[5] if logbook is None else max(count[5], logbook.began_s)
        live.shadows.add(variant)
        live.lose(logbook, variant, arrival_s, cause)

    def _place(self, count: Count) -> tuple[LiveEndpoint, str, Logbook | None]:
        """Return the endpoint, variant and logbook of a count."""
        endpoint, variant, identity = count[1], count[2], count[3:5]
        logbook = self._logbook(endpoint, identity)
        if logbook is not None and variant not in logbook.variants:
            logbook = None
        if logbook is not None and count[0] == SERVED:
            logbook.n_requests = max(logbook.n_requests, count[5] + 1)
        return self._live(endpoint), variant, logbook

    def _logbook(self, endpoint: str, identity: tuple[str | None, float | None]) -> Logbook | None:
        """Return the logbook of an experiment by its name and creation time."""
        live = self.endpoints.by_name.get(endpoint)
        for known in (live.logbook if live else None, self.endpoints.ended.get(identity[0] or "")):
            if known is not None and (known.experiment, known.created_s) == identity:
                return known
        return None

    def _follow(self, count: Count) -> None:
        """Bring an endpoint in step, since a reporter was first to see its experiment, which begins with this count."""
        live = self.endpoints.by_name.get(count[1])
        if live is not None:
            live.fresh_until_s = 0.0
        self._latest_begin_s = count[7] if count[0] == SERVED else count[5]
        with suppress(ShadowsimError):
            self.endpoints.endpoint(count[1])
        self._latest_begin_s = math.inf

    def _live(self, endpoint: str) -> LiveEndpoint:
        live = self.endpoints.by_name.get(endpoint)
        return live if live is not None else self.endpoints.add(EndpointView(endpoint, "", -1))

    def _check_point(self) -> None:
        """Write all counts to a file, and begin a new journal."""
        state = {
            "segment": self._segment + 1,
            "reports": self.reports,
            "copies": self._copies,
            "mirror": self._mirror_generation,
            "lines_lost": self._captures.n_lost,
            "ended": self.endpoints.ended,
            "endpoints": {
                name: (live.series, live.shadows, live.logbook) for name, live in self.endpoints.by_name.items()
            },
        }
        partial_file, file = self._folder / "checkpoint.partial", self._folder / "checkpoint"
        try:
            with partial_file.open("wb") as stream:
                pickle.dump(state, stream, protocol=pickle.HIGHEST_PROTOCOL)
            partial_file.replace(file)
            self.close()
            (self._folder / f"counts-{self._segment}").unlink()
            self._segment, self._n_bytes = self._segment + 1, 0
            self._stream = (self._folder / f"counts-{self._segment}").open("w+b", buffering=0)
        except OSError as error:
            _LOG.error("counts cannot be written, so a crash would lose them: %s", error)

    def _restore(self) -> None:
        file = self._folder / "checkpoint"
        if not file.exists():
            return
        state = pickle.loads(file.read_bytes())  # written by this user's own process
        self._segment, self.reports, self._copies = state["segment"], state["reports"], state["copies"]
        self._mirror_generation = state["mirror"]
        self._captures.n_lost.update(state["lines_lost"])
        self.endpoints.ended.update(state["ended"])
        for name, (series, shadows, logbook) in state["endpoints"].items():
            live = self._live(name)
            live.series, live.shadows, live.logbook = series, shadows, logbook


class _KeptEndpoint(LiveEndpoint):
    """A live endpoint whose samples are kept in a ledger."""

    __slots__ = ("_ledger",)

    def __init__(self, view: EndpointView, mirror: RequestMirror, ledger: Ledger):
        super().__init__(view, mirror)
        self._ledger = ledger

    def take_sample(self, *sample: Any) -> None:
        """Record a sample, and keep it."""
        variant, now_s, outstanding, n_cores, batches = sample
        entry = variant, now_s, list(outstanding), n_cores, list(batches)
        self._ledger.sample(self.view.name, *entry)
        super().take_sample(*entry)


def _not_before(logbook: Logbook | None, served: ServedRequest) -> ServedRequest:
    """Return a request as one that came when its logbook was open: another process may have seen it sooner."""
    if logbook is None or served.arrival_s >= logbook.began_s:
        return served
    return replace(served, arrival_s=logbook.began_s)
