"""Live endpoints: the pools, mirror and counts of each, kept in step with the control plane.

A live endpoint is made when it is first asked for. Its view of the control plane is renewed after a moment, or when an
action was accepted, and only differences are applied: a pool whose variant is unchanged keeps its instances and their
requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from time import time
from zlib import crc32

from shadowsim.aws.instances import lookup
from shadowsim.errors import ShadowsimError
from shadowsim.scenario.defaults import TIME
from shadowsim.scenario.reading import Mirroring
from shadowsim.scenario.routing import DEFAULT_ROUTING
from shadowsim.scenario.service import Service, parse_service
from shadowsim.server.control.scaler import PoolReading
from shadowsim.server.data_plane.backends import Backend, Container
from shadowsim.server.data_plane.counts import Series, ServedRequest
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.mirror import CopyLimits, RequestMirror
from shadowsim.server.data_plane.pools import VariantPool
from shadowsim.server.data_plane.simulated import simulated
from shadowsim.server.data_plane.spare_time import SpareTime, Turns, rest
from shadowsim.server.state.scaling import resource_id
from shadowsim.server.state.views import EndpointView, VariantView

REFRESH_S = 0.02  # greatest age of a view
SLICE_ENDPOINTS = 8  # looked at in one go
KEPT_LOGBOOKS = 16  # of experiments that have ended
KEPT_DELETED = 256  # deleted endpoints whose counts can still be read
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelContainers:
    """The containers of a model, as two backends with connections of their own.

    Attributes
    ----------
    callers : Container
        Serves callers.
    copies : Container
        Serves copies.
    """

    callers: Container
    copies: Container


@dataclass(frozen=True, slots=True)
class BackendSources:
    """Makes backends of variants from containers and service models.

    Attributes
    ----------
    containers : mapping of str to ModelContainers
        By model.
    services : mapping of str to Service
        By variant, for models without a container.
    seed : int
        Seed of simulated backends.
    overhead_s : float
        What answers of simulated instances take beyond the model's latency.
    defaulted : set of str
        Models with neither, about which a warning was logged.
    """

    containers: Mapping[str, ModelContainers] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    seed: int = 7
    overhead_s: float = 0.0
    defaulted: set[str] = field(default_factory=set, compare=False)

    def pool(
        self, view: EndpointView, variant: VariantView, routing: str, random: Random, *, copies: bool
    ) -> VariantPool:
        """Return a pool for a variant of an endpoint."""
        return VariantPool(variant, routing, self.backend(variant, copies), random, copies)

    def backend(self, variant: VariantView, copies: bool) -> Backend:
        """Return a backend for a variant; with neither container nor service model, one of a default model."""
        containers = self.containers.get(variant.model_name)
        if containers is not None:
            return containers.copies if copies else containers.callers
        service = self.services.get(variant.name)
        if service is None:
            service = parse_service({"time": dict(TIME)}, "services")
            if variant.model_name not in self.defaulted:
                self.defaulted.add(variant.model_name)
                what = "has no --backend and no service model; it is simulated: lognormal, mean 20 ms, scv 0.25"
                _LOG.warning("model %s (variant %s) %s", variant.model_name, variant.name, what)
        workers = service.workers or lookup(variant.instance_type).workers or 1
        seed = crc32(f"{self.seed} {variant.name} {copies}".encode())  # independent draws for each variant
        return simulated(service, variant.instance_count, workers, seed, self.overhead_s)


@dataclass(slots=True)
class LiveEndpoint:
    """An endpoint that serves.

    Attributes
    ----------
    view : EndpointView
    pools : dict of str to VariantPool
        Pools of the production variants, by variant.
    shadow : VariantPool or None
    mirror : RequestMirror
    series : dict of str to Series
        Counts per minute since 1970, by variant (the shadow's, too).
    shadows : set of str
        Variants that are or were a shadow.
    logbook : Logbook or None
        Records of the live experiment.
    fresh_until_s : float
        Moment, by the clock of LiveEndpoints, from which the view must be renewed.
    """

    view: EndpointView
    mirror: RequestMirror
    pools: dict[str, VariantPool] = field(default_factory=dict)
    shadow: VariantPool | None = None
    series: dict[str, Series] = field(default_factory=dict)
    shadows: set[str] = field(default_factory=set)
    logbook: Logbook | None = None
    fresh_until_s: float = 0.0

    def serving(self) -> list[VariantPool]:
        """Return the pools of all variants."""
        return [*self.pools.values(), *([self.shadow] if self.shadow else [])]

    def announce(self) -> None:
        """Do nothing: whatever ends this process before a request is counted ends its counts, too."""

    def record(self, logbook: Logbook | None, variant: str, served: ServedRequest) -> None:
        """Count a request for its variant, and in the logbook of the experiment that was live when it came."""
        self.series_of(variant).add(served)
        if logbook is not None:
            logbook.add(logbook.variants.index(variant), served)

    def lose(self, logbook: Logbook | None, variant: str, arrival_s: float, cause: str) -> None:
        """Count a lost copy."""
        self.series_of(variant).lose(arrival_s, cause)
        if logbook is not None:
            logbook.series[1].lose(arrival_s, cause)

    def sample(self, now_s: float) -> None:
        """Record each instance's concurrent requests, which also gives idle variants their zeros."""
        for pool in self.serving():
            self.take_sample(pool.variant.name, now_s, pool.in_flight(), cores_of(pool), pool.batches())

    def take_sample(
        self,
        variant: str,
        now_s: float,
        outstanding: Sequence[int],
        n_cores: int | None,
        batches: Sequence[tuple[int, float]],
    ) -> None:
        """Record the requests, cores and batches of a variant's instances, as in `Series.sample`."""
        self.series_of(variant).sample(now_s, outstanding, n_cores, batches)
        if self.logbook is not None and variant in self.logbook.variants:
            series = self.logbook.series[self.logbook.variants.index(variant)]
            series.sample(now_s, outstanding, n_cores, batches)

    def series_of(self, variant: str) -> Series:
        """Return the counts of a variant, which are made if need be."""
        if variant not in self.series:
            self.series[variant] = Series()
        return self.series[variant]


class LiveEndpoints:
    """Live endpoints of a server, by name.

    Parameters
    ----------
    view : callable
        Returns the present `EndpointView` of a name.
    sources : BackendSources
    mirroring : Mirroring
    copy_limits : CopyLimits
    routing : mapping of str to str
        Routing strategies by variant that override the control plane's.
    clock : callable
        Seconds on any steady clock.
    spare_time : SpareTime, optional
        Of the event loop, for copies.
    make : callable
        Makes a live endpoint of its view and its mirror.
    open_logbook : callable
        Makes the logbook of an experiment, as `Logbook` does.

    Attributes
    ----------
    by_name : dict of str to LiveEndpoint
        Endpoints that were asked for, including deleted ones, whose counts stay.
    ended : dict of str to Logbook
        Logbooks of experiments that have ended, the last KEPT_LOGBOOKS of them.
    """

    def __init__(
        self,
        *,
        view: Callable[[str], EndpointView],
        sources: BackendSources,
        mirroring: Mirroring,
        copy_limits: CopyLimits,
        routing: Mapping[str, str],
        clock: Callable[[], float],
        spare_time: SpareTime | None = None,
        make: Callable[[EndpointView, RequestMirror], LiveEndpoint] = LiveEndpoint,
        open_logbook: Callable[..., Logbook] = Logbook,
    ):
        self.by_name: dict[str, LiveEndpoint] = {}
        self.ended: dict[str, Logbook] = {}
        self._make, self._open_logbook = make, open_logbook
        self._view, self._sources = view, sources
        self._mirroring, self._copy_limits = mirroring, copy_limits
        self._routing, self._clock, self._spare_time = routing, clock, spare_time or SpareTime()
        self._random = Random(sources.seed)

    def endpoint(self, name: str) -> LiveEndpoint:
        """Return an endpoint, in step with the control plane to within REFRESH_S.

        Raises
        ------
        ShadowsimError
            The control plane has no endpoint of this name.
        """
        now = self._clock()
        live = self.by_name.get(name)
        if live is not None and now < live.fresh_until_s:
            return live
        try:
            view = self._view(name)
        except ShadowsimError:
            if live is not None and live.pools:
                self.end_logbook(live)
                live.pools, live.shadow = {}, None
            raise
        if live is None:
            live = self.add(view)
            self._follow(live)
        elif view.version != live.view.version or not live.pools:
            live.view = view
            self._follow(live)
        live.fresh_until_s = now + REFRESH_S
        return live

    def add(self, view: EndpointView) -> LiveEndpoint:
        """Add an endpoint that serves nothing yet."""
        mirror = RequestMirror(self._mirroring, self._copy_limits, self._random, self._spare_time)
        live = self.by_name[view.name] = self._make(view, mirror)
        return live

    def expire(self, *, is_revised: bool = False) -> None:
        """Make every endpoint renew its view before it serves again, since an action was accepted.

        Parameters
        ----------
        is_revised : bool
            Whether versions that were seen may mean something else by now.
        """
        for live in self.by_name.values():
            live.fresh_until_s = 0.0
            if is_revised:
                live.view = replace(live.view, version=-1)

    async def refresh(self, names: Iterable[str]) -> None:
        """Bring known and named endpoints in step, whether or not they get requests; other work goes on meanwhile."""
        deleted = []
        known = [*self.by_name, *(name for name in names if name not in self.by_name)]
        for i, name in enumerate(known):
            if i % SLICE_ENDPOINTS == SLICE_ENDPOINTS - 1:
                await rest()
            try:
                self.endpoint(name)
            except ShadowsimError:
                deleted.append(name)
        self._keep_last(deleted)

    async def forget_deleted(self) -> None:
        """Forget deleted endpoints but the last KEPT_DELETED; other work goes on meanwhile."""
        deleted, turns = [], Turns()
        for name in list(self.by_name):
            await turns.pause()
            try:
                self._view(name)
            except ShadowsimError:
                deleted.append(name)
        self._keep_last(deleted)

    def _keep_last(self, deleted: Sequence[str]) -> None:
        """Forget deleted endpoints but the last KEPT_DELETED."""
        for name in deleted[:-KEPT_DELETED]:
            self.by_name.pop(name, None)

    def readings(self, names: Iterable[str]) -> dict[str, PoolReading]:
        """Return what the scaler reads of each variant of some endpoints, by resource id."""
        return {
            resource_id(name, pool.variant.name): PoolReading(pool.n_arrived, sum(pool.in_flight()))
            for name in names
            if (live := self.by_name.get(name)) is not None
            for pool in live.serving()
        }

    def logbook(self, experiment: str) -> Logbook | None:
        """Return the logbook of an experiment that is live or has recently ended; None without one."""
        for live in self.by_name.values():
            if live.logbook is not None and live.logbook.experiment == experiment:
                return live.logbook
        return self.ended.get(experiment)

    async def sample(self) -> None:
        """Record the concurrent requests of all endpoints; other work goes on meanwhile."""
        for i, live in enumerate(list(self.by_name.values())):
            if i % SLICE_ENDPOINTS == SLICE_ENDPOINTS - 1:
                await rest()
            live.sample(time())

    def _follow(self, live: LiveEndpoint) -> None:
        view, before = live.view, live.serving()
        live.pools = {variant.name: self._pool(variant, view, before, False) for variant in view.production}
        live.shadow = self._pool(view.shadow.variant, view, before, True) if view.shadow else None
        live.shadows -= set(live.pools)  # promoted
        if live.shadow is not None:
            live.shadows.add(live.shadow.variant.name)
        experiment = view.experiment if view.shadow else None
        identity = experiment, view.experiment_s
        if live.logbook is not None and (live.logbook.experiment, live.logbook.created_s) != identity:
            self.end_logbook(live)
        if experiment is not None and live.logbook is None and view.shadow and live.shadow:
            names = view.shadow.source_name, view.shadow.variant.name
            source = live.pools.get(names[0])
            workers = source.n_workers if source else None, live.shadow.n_workers
            live.logbook = self._open_logbook(
                experiment=experiment,
                endpoint=view.name,
                variants=names,
                began_s=time(),
                n_workers=workers,
                created_s=view.experiment_s,
                in_tokens=any(pool is not None and bool(pool.batches()) for pool in (source, live.shadow)),
            )
            live.mirror.restart()

    def _pool(
        self, variant: VariantView, view: EndpointView, before: Sequence[VariantPool], copies: bool
    ) -> VariantPool:
        routing = self._routing.get(variant.name, view.routing.get(variant.name, DEFAULT_ROUTING))
        for pool in before:
            if _is_same(pool.variant, variant) and pool.routing == routing and pool.copies == copies:
                pool.variant = variant
                pool.resize(variant.instance_count)
                return pool
        return self._sources.pool(view, variant, routing, self._random, copies=copies)

    def end_logbook(self, live: LiveEndpoint) -> None:
        """Keep an endpoint's logbook, if it has one, among those of experiments that have ended."""
        if live.logbook is not None:
            self.ended[live.logbook.experiment] = live.logbook
            live.logbook = None
            while len(self.ended) > KEPT_LOGBOOKS:
                del self.ended[next(iter(self.ended))]


def _is_same(one: VariantView, other: VariantView) -> bool:
    """Return whether two views differ at most in weight and size, so that instances of one serve the other."""
    alike = replace(one, weight=other.weight, instance_count=other.instance_count, starting_s=other.starting_s)
    return alike == other


def cores_of(pool: VariantPool) -> int | None:
    """Return the cores of an instance if they are its workers, so that a busy worker is a busy core; else None."""
    instance_type = lookup(pool.variant.instance_type)
    is_worker = instance_type.accelerator_count == 0 and instance_type.vcpus == pool.n_workers
    return instance_type.vcpus if is_worker else None
