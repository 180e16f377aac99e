"""Defines `Scenario`: experiment, traffic, services and run settings, all that one simulation needs.

A `Scenario` keeps its JSON document. An edit changes the document and validates all of it again, so that an edited
scenario can always be written to a file. Where changes are made to what is being read (`Scenario.of`), the experiment
is therefore parsed twice: first for the names of its variants, which aliases such as `shadow.` need, and then again
with the changed document.

Defaults of what the file leaves out:

* `run.horizon_s`: the Schedule's length, else 7 days. If all traffic is traces, no run is longer than the longest of
  them: time after the last request would count as idle. With an EndTime alone, the run begins when the scenario is
  made, and the length is written into the document.
* `services.*.workers`: the instance type's accelerators, or else its vCPUs.

The last window is shorter when the horizon is not a multiple of `run.period_s`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from shadowsim.aws.experiment import Experiment, Variant, iso_time
from shadowsim.aws.instances import duration_text
from shadowsim.aws.other_documents import refuse_other_document
from shadowsim.aws.request_sources import request_source
from shadowsim.documents import read_document, refuse_doubtful
from shadowsim.errors import Collector, InputError
from shadowsim.json_files import file_of, path_of
from shadowsim.scenario.defaults import (
    builtin_document,
    changed_document,
    draft_document,
    is_request,
    requested_document,
)
from shadowsim.scenario.fields import BLOCKS, Block
from shadowsim.scenario.paths import check_changes, edited, plain, value_at
from shadowsim.scenario.precision import Auto, Precision
from shadowsim.scenario.reading import (
    Mirroring,
    RunKeys,
    check_changes_of_pool,
    check_columns,
    check_mirror,
    check_pool,
    check_rate,
    check_warmup,
    check_windows,
    horizon_of,
    read_endpoint,
    read_experiment,
    read_mirror,
    read_routing,
    read_services,
    wanted_horizon_s,
    workers_of,
)
from shadowsim.scenario.resample import resampling_note
from shadowsim.scenario.retries import retry_assumptions
from shadowsim.scenario.service import Service
from shadowsim.scenario.table_files import BUILTIN
from shadowsim.scenario.tokens import Goodput, Tokens, mean_work_s
from shadowsim.scenario.traffic import Traffic, parse_traffic

_LONG_SERVICE_S = 1.0
_ABSURD_LOAD = 20.0  # times a pool's capacity: a service time in ms without its unit brings a thousand times the load


@dataclass(frozen=True, slots=True)
class Side:
    """One variant of a scenario, with the service and the traffic of its pool.

    Attributes
    ----------
    role : str
        "source" or "shadow".
    variant : Variant
        Its name, model and instances.
    service : Service
    workers : int
        Workers per instance.
    routing : str
        A name in `routing.ROUTINGS`.
    share : float
        Share of the endpoint's requests that reach it, 0..1; retries apart.
    evented : bool
        Whether the pool has to be simulated event by event: it batches, scales or fails, or callers retry.
    """

    role: str
    variant: Variant
    service: Service
    workers: int
    routing: str
    share: float
    evented: bool

    @property
    def n_instances(self) -> int:
        """InstanceCount; a variant that scales begins with it."""
        return self.variant.pool.instance_count

    def assumptions(self, horizon_s: float) -> list[str]:
        """Return sentences on values of its service that were assumed, or are not used in a run of this length."""
        name, service, sentences = self.variant.name, self.service, []
        if service.scaling is not None and service.cold_start_s is None:
            sentences.append(f"{name}: new instances serve at once (cold_start_s is left out).")
        if service.tokens is not None and service.tokens.on_timeout is None:
            sentences.append(f"{name}: requests that time out are served to their end (tokens.on_timeout is left out).")
        if service.tokens is not None and service.tokens.preset is not None:
            sentences.append(f"{name}: {service.tokens.preset.assumption}")
        if service.scaling is None and service.cold_start_s is not None:
            sentences.append(f"{name}: cold_start_s is not used, since the variant does not scale.")
        if service.outages is not None:
            late = sum(outage.at_s >= horizon_s for outage in service.outages.listed)
            if late:
                sentences.append(f"{name}: the run ends before {late:,} of {len(service.outages.listed):,} outages.")
        return sentences


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that one simulation needs; made by `of`, `load`, `from_dict` or `default_scenario`.

    Attributes
    ----------
    experiment : Experiment
    traffic : Traffic
    services : mapping of str to Service
        By variant name.
    source_workers, shadow_workers : int
        Workers per instance.
    routing : mapping of str to str
        Routing strategy by variant name.
    overhead_s, timeout_s : float
        OverheadLatency, and the time after which a request fails.
    mirror_rule, mirror_instant : str
        The rule that chooses the requests to copy ("coin", "counter" or "hash"), and the instant of copying ("arrival"
        or "response").
    max_body_bytes : float or None
        Longer bodies are not copied; None for no limit.
    max_in_flight : int or None
        No copy is made while this many are unanswered; None for no limit.
    max_per_s : int or None
        Most copies within any second; None for no limit.
    horizon_s, period_s : float
        Length of the run and of a window.
    seed : int
        0 .. 2**64 - 1.
    sample_requests : int
        Number of requests that the `requests` frame keeps.
    replications : int
        Number of runs that `replicate` makes; `simulate` makes one.
    goodput : tuple of Goodput
        Limits within which requests of services in tokens are counted.
    warmup_s : float or "auto"
        Beginning of the run that figures leave out; the frames have it.
    precision : Precision or None
        How precise `replicate` makes a figure, by more runs than `replications`.
    assumed : mapping of str to str
        Assumptions made for a plain request: one sentence per path.
    document : mapping
        The JSON object that the scenario was made from.
    base_dir : Path
        The folder that the document's file paths are relative to.

    Examples
    --------
    >>> import shadowsim as ss
    >>> scenario = ss.default_scenario().replace({"shadow.instance_count": 4, "horizon_s": "1h"})
    >>> scenario.experiment.shadow.pool.instance_count, scenario.horizon_s
    (4, 3600.0)
    >>> scenario.replace({"sampling_percentage": 25}).share
    0.25

    `Scenario.load("scenario.json")` and `Scenario.of("request.json", rate_per_s=500)` read files.
    """

    experiment: Experiment
    traffic: Traffic
    services: Mapping[str, Service]
    source_workers: int
    shadow_workers: int
    routing: Mapping[str, str]
    overhead_s: float
    timeout_s: float
    mirror_rule: str
    mirror_instant: str
    max_body_bytes: float | None
    max_in_flight: int | None
    max_per_s: int | None
    horizon_s: float
    period_s: float
    seed: int
    sample_requests: int
    replications: int
    goodput: tuple[Goodput, ...]
    warmup_s: float | Auto
    precision: Precision | None
    assumed: Mapping[str, str] = field(compare=False)
    document: Mapping[str, object] = field(compare=False, repr=False)
    base_dir: Path = field(compare=False)

    @classmethod
    def of(
        cls,
        source: object,
        rate_per_s: float | None = None,
        changes: Mapping[str, object] | None = None,
        *,
        resource: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Scenario:
        """Return the scenario that an object, a JSON text or a file in JSON, YAML or TOML describes.

        Parameters
        ----------
        source : Scenario, mapping, JSON text or path
            A scenario, or a plain CreateInferenceExperiment request, or what holds one (`Experiment.from_request`).
        rate_per_s : float, optional
            Mean rate over the horizon, in requests per second; required for a plain request, unless `changes` set its
            traffic.
        changes : mapping of str to object, optional
            As for `replace`. They are made before the scenario is checked, since a plain request may need them to be
            complete: for example, the workers of an unknown instance type.
        resource, parameters : str and mapping, optional
            As for `Experiment.from_request`.

        Raises
        ------
        InputError, ValidationError, SerializationError
            When it cannot be used.
        """
        edits: dict[str, object] = {} if rate_per_s is None else {"rate_per_s": rate_per_s}
        edits |= check_changes(changes) if changes else {}
        if isinstance(source, Scenario):
            return source.replace(edits) if edits else source
        document = cast(dict[str, object], plain(read_document(source, "scenario")))
        if not any(key in BLOCKS for key in document):
            found = request_source(document, "request", resource, parameters)
            refuse_doubtful(found.request)
            document = found.request
            if is_request(document):
                document, assumed = requested_document(found, edits)
                # File paths in a plain request are relative to the working directory.
                return cls.from_dict(document, None, assumed)
        file = file_of(source)
        if edits:
            # Before it is checked: a file may leave the rate of its traffic to the caller.
            experiment = read_experiment(Block.of(document, ""))
            document, _ = changed_document(document, {}, experiment, edits)
        return cls.from_dict(document, file.parent if file else None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scenario:
        """Read a scenario file: JSON, YAML or TOML, by its ending."""
        file = path_of(path, "scenario")
        return cls.from_dict(read_document(file), file.parent)

    @classmethod
    def from_dict(
        cls,
        document: Mapping[str, object],
        base_dir: str | os.PathLike[str] | None = None,
        assumed: Mapping[str, str] | None = None,
    ) -> Scenario:
        """Return the scenario that a JSON object describes.

        Parameters
        ----------
        document : mapping
            As in a scenario file; it is copied.
        base_dir : path, optional
            The folder that its file paths are relative to; by default the working directory.
        assumed : mapping, optional
            See the class.

        Raises
        ------
        InputError
            All errors: the path, the constraint and the value of each.
        ValidationError
            If the experiment's block is wrong: all its errors, in AWS's words, and those of the other blocks.
        """
        base = Path(base_dir) if base_dir is not None else Path()
        refuse_other_document(document)
        if isinstance(document, Mapping) and is_request(document):
            hint = "`shadowsim init` makes a file of it to edit, Scenario.of(request, rate_per_s) a scenario"
            raise InputError("scenario", f"is a plain CreateInferenceExperiment request; {hint}")
        refuse_doubtful(document)
        root, errors = Block.of(plain(document), ""), Collector()
        with errors:
            root.only(BLOCKS)
        with errors:
            experiment = read_experiment(root)
            with errors:
                services = read_services(root, experiment, base)
            with errors:
                routing = read_routing(root.block("endpoint"), experiment)
            wanted_horizon_s(root.block("run"), experiment)
        with errors:
            traffic = parse_traffic(root.need("traffic"), "traffic", base)
        with errors:
            times = read_endpoint(root.block("endpoint"))
        with errors:
            mirror = read_mirror(root.block("mirror"))
        with errors:
            settings = RunKeys.read(root.block("run"))
        errors.check()
        run, period_s = root.block("run"), settings.period_s
        horizon_s = horizon_of(run, experiment, traffic, period_s)
        values, assumed = dict(root.values), dict(assumed or {})
        if experiment.schedule.start is None and experiment.schedule.end is not None and not run.has("horizon_s"):
            values = edited(values, "run.horizon_s", experiment.duration_s)
            assumed["run.horizon_s"] = f"run.horizon_s: {horizon_s:.0f} s, from now until the Schedule's EndTime."
        end = experiment.window()[1]
        if end <= datetime.now(UTC):
            note = f"experiment.Schedule: ended at {iso_time(end)}, before now; SageMaker would refuse it."
            assumed["experiment.Schedule"] = note
        workers = {}
        for variant in (experiment.source, experiment.shadow):
            with errors:
                workers[variant.name] = workers_of(variant, services[variant.name])
                check_pool(variant, workers[variant.name], values)
                check_changes_of_pool(variant, services[variant.name], workers[variant.name], horizon_s)
            with errors:
                wake = services[variant.name].wake
                if wake is not None and traffic.retries is not None:
                    path = f"services.{variant.name}.wake"
                    raise InputError(
                        path, "must be left out beside traffic.retries", services[variant.name].block["wake"]
                    )
        with errors:
            check_mirror(mirror, traffic)
        with errors:
            if settings.goodput and not any(service.tokens for service in services.values()):
                raise InputError("run.goodput", "needs a service with `tokens`", run.values["goodput"])
        with errors:
            check_columns(traffic, services)
        with errors:
            check_windows(horizon_s, period_s)
            check_warmup(settings.warmup_s, horizon_s, period_s, traffic, services)
            # Only after it: the rates of a horizon of too many windows would fill the memory.
            check_rate(traffic, horizon_s, period_s, experiment.schedule.start)
        errors.check()
        return cls(
            experiment=experiment,
            traffic=traffic,
            services=services,
            source_workers=workers[experiment.source.name],
            shadow_workers=workers[experiment.shadow.name],
            routing=routing,
            overhead_s=times.overhead_s,
            timeout_s=times.timeout_s,
            mirror_rule=mirror.rule,
            mirror_instant=mirror.instant,
            max_body_bytes=mirror.max_body_bytes,
            max_in_flight=mirror.max_in_flight,
            max_per_s=mirror.max_per_s,
            horizon_s=horizon_s,
            period_s=period_s,
            seed=settings.seed,
            sample_requests=settings.sample_requests,
            replications=settings.replications,
            goodput=settings.goodput or (),
            warmup_s=settings.warmup_s,
            precision=settings.precision,
            assumed=assumed,
            document=values,
            base_dir=base,
        )

    def side(self, role: str) -> Side:
        """Return the source's or the shadow's side; `role` is "source" or "shadow"."""
        source = role == "source"
        variant = self.experiment.source if source else self.experiment.shadow
        service = self.services[variant.name]
        return Side(
            role=role,
            variant=variant,
            service=service,
            workers=self.source_workers if source else self.shadow_workers,
            routing=self.routing[variant.name],
            share=1.0 if source else self.share,
            evented=service.has_events or self.traffic.retries is not None,
        )

    @property
    def evented(self) -> bool:
        """Whether a pool has to be simulated event by event."""
        return any(self.side(role).evented for role in ("source", "shadow"))

    @property
    def source_service(self) -> Service:
        """The source's service model."""
        return self.services[self.experiment.source.name]

    @property
    def shadow_service(self) -> Service:
        """The shadow's service model."""
        return self.services[self.experiment.shadow.name]

    @property
    def mirroring(self) -> Mirroring:
        """The settings of its mirror."""
        return Mirroring(
            rule=self.mirror_rule,
            instant=self.mirror_instant,
            max_body_bytes=self.max_body_bytes,
            max_in_flight=self.max_in_flight,
            max_per_s=self.max_per_s,
        )

    @property
    def share(self) -> float:
        """The share of requests to copy, 0..1."""
        return self.experiment.sampling_percentage / 100.0

    @property
    def start(self) -> datetime | None:
        """The calendar time of t = 0: the Schedule's StartTime, if it has one."""
        return self.experiment.schedule.start

    @property
    def capture(self) -> bool:
        """Whether requests and responses are captured: the experiment has a DataStorageConfig."""
        return self.experiment.storage is not None

    @property
    def n_windows(self) -> int:
        """Number of windows that begin before the horizon; window w begins at w * period_s."""
        n = math.ceil(self.horizon_s / self.period_s)
        # The quotient is rounded; all other code compares with the product.
        n += n * self.period_s < self.horizon_s
        return n - ((n - 1) * self.period_s >= self.horizon_s)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Sentences on values that were assumed, and on input that is not used."""
        sentences = list(self.assumed.values())
        sentences += dict.fromkeys(trace.reading for trace in self.traffic.traces)
        wanted_s = wanted_horizon_s(Block.of(self.document, "").block("run"), self.experiment)
        if wanted_s is not None and self.horizon_s < wanted_s:
            covered = duration_text(self.horizon_s)
            sentence = f"The trace covers {covered} of {duration_text(wanted_s)}; figures are of these {covered}"
            sentences.append(f"{sentence} (repeat plays it again).")
        for trace in self.traffic.traces:
            inside = trace.n_before(self.horizon_s)
            if inside < trace.n_requests:
                sentences.append(f"The run ends before its trace: {inside:,} of {trace.n_requests:,} requests come.")
        for role in ("source", "shadow"):
            sentences += [text for text in (self._unlikely_service(role),) if text]
            sentences += self.side(role).assumptions(self.horizon_s)
        sentences += [
            resampling_note(stream.resample, stream.trace(), stream.path)
            for stream in self.traffic.streams
            if stream.resample is not None
        ]
        return (*sentences, *retry_assumptions(self.traffic.retries, self.traffic.block))

    def _unlikely_service(self, role: str) -> str:
        """Return a sentence on a service time that is probably in milliseconds without saying so; "" for others."""
        side = self.side(role)
        rate_per_s = side.share * self.traffic.mean_rate(self.horizon_s, self.start)
        if side.service.tokens is not None:
            return self._unlikely_step(side.service.tokens, rate_per_s / side.n_instances)
        law = side.service.time
        if law.kind == "linear" or not law.mean >= _LONG_SERVICE_S:  # a linear law has a unit for each column
            return ""
        load = rate_per_s * law.mean / (side.n_instances * side.workers)
        if load < _ABSURD_LOAD:
            return ""
        what = f"services.{side.variant.name}.time: a service of {law.mean:g} s per request"
        return f'{what} is {load:,.0f} times what the pool can do; are {law.mean:g} ms meant ("{law.mean:g}ms")?'

    def _unlikely_step(self, tokens: Tokens, rate_per_s: float) -> str:
        columns = self.traffic.trace().columns if self.traffic.process == "trace" else {}
        load = rate_per_s * mean_work_s(tokens, columns)
        if load < _ABSURD_LOAD:
            return ""
        what = f"{tokens.path}.step: steps take {load:,.0f} times the time that there is"
        if tokens.preset is not None:
            return f"{what}."
        return f'{what}; are its coefficients milliseconds ("{tokens.step.base_s:g}ms")?'

    def to_dict(self) -> dict[str, object]:
        """Return the scenario's JSON object, with all edits."""
        return cast(dict[str, object], plain(self.document))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a scenario file in JSON, which is YAML, too. Relative paths are rewritten to be relative to its folder.

        Raises
        ------
        InputError
            The file's ending is that of TOML, as which it could not be read.
        """
        if Path(path).suffix.lower() == ".toml":
            raise InputError(f"{path}", "must not end in .toml: scenarios are written in JSON")
        folder = Path(path).resolve().parent
        document = self.to_dict()
        blocks = [stream.path for stream in self.traffic.streams]
        sizes = [f"{block}.{key}" for block in blocks for key in ("request_bytes", "response_bytes")]
        times = [f"services.{name}.time" for name in self.services]
        for name, service in self.services.items():
            times += [f"services.{name}.by_instance_type.{kind}.time" for kind in service.by_instance_type]
        lengths = [f"{service[: -len('time')]}tokens.{key}" for service in times for key in ("prompt", "output")]
        for where in (*blocks, *sizes, *times, *lengths):
            old = value_at(document, f"{where}.path")
            if isinstance(old, str) and not old.startswith(BUILTIN) and not Path(old).is_absolute():
                moved = os.path.relpath(self.base_dir.resolve() / old, folder)
                document = edited(document, f"{where}.path", moved)
        Path(path).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def replace(self, changes: Mapping[str, object]) -> Scenario:
        """Return a scenario with some values changed, validated as a whole.

        Parameters
        ----------
        changes : mapping of str to object
            JSON values by path (paths.py): `sampling_percentage`, `rate_per_s`, `seed`, `horizon_s`; `source.` or
            `shadow.` followed by `instance_type`, `instance_count`, `model_name` or a key of that variant's service
            (`shadow.time.mean_s`); or the path in the scenario file (`run.period_s`). All are made before the result is
            checked. None removes a value.

        Raises
        ------
        InputError, ValidationError
            When a path is unknown, or the changed scenario is not valid.
        """
        document, assumed = changed_document(self.document, self.assumed, self.experiment, check_changes(changes))
        return Scenario.from_dict(document, self.base_dir, assumed)

    def __repr__(self) -> str:
        name, share = self.experiment.name, self.experiment.sampling_percentage
        return f"<Scenario of {name}: {share} % copied, {self.horizon_s:g} s, seed {self.seed}>"

    def _repr_html_(self) -> str:
        from shadowsim import card  # inside the method: report/ stands below scenario/

        return card(self)


def default_scenario() -> Scenario:
    """Return the built-in scenario (defaults.py).

    Examples
    --------
    >>> import shadowsim as ss
    >>> scenario = ss.default_scenario()
    >>> scenario.experiment.name, scenario.horizon_s
    ('built-in', 86400.0)
    """
    return Scenario.from_dict(builtin_document())


def init_scenario(
    request: object = None, resource: str | None = None, parameters: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return a valid scenario to edit, with its main keys spelled out.

    Parameters
    ----------
    request : mapping, JSON text or path, optional
        As for `Experiment.from_request`; without one, the built-in scenario. Its traffic is a placeholder of 100
        requests per second.
    resource, parameters : str and mapping, optional
        As for `Experiment.from_request`.
    """
    if request is None:
        return builtin_document()
    body = cast(dict[str, object], plain(read_document(request)))
    found = request_source(body, "request", resource, parameters)
    document = draft_document(found, Experiment.from_request(found.request))
    return Scenario.from_dict(document).to_dict()
