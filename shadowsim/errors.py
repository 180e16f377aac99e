"""Defines every error that shadowsim raises on purpose, and how messages show values.

One hierarchy: each error carries the code and the HTTP status that AWS's services put on the wire, so that the same
error serves a notebook, the command line and the local server. A message gives the parameter, the constraint and
the value, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import partial
from itertools import islice
from numbers import Number
from pathlib import PurePath
from types import NoneType

_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((NoneType,), "null"),
    ((bool,), "a boolean"),
    ((int,), "an integer"),
    ((float,), "a float"),
    ((str,), "a string"),
    ((Mapping,), "an object"),
    ((list, tuple), "a list"),
)
_MAX_SHOWN = 120
MOST_VIOLATIONS, _MOST_LISTED = 1_000, 50


class ShadowsimError(Exception):
    """Base of all errors raised on purpose.

    Attributes
    ----------
    code : str
        AWS's error code, as `__type` carries it on the wire.
    http_status : int
        The HTTP status of an answer with this error.

    Examples
    --------
    >>> import shadowsim as ss
    >>> issubclass(ss.InputError, ss.ShadowsimError), issubclass(ss.ValidationError, ss.ShadowsimError)
    (True, True)
    """

    code = "InternalFailure"
    http_status = 500


class ValidationError(ShadowsimError, ValueError):
    """A request that breaks the service model or a rule across its fields.

    Parameters
    ----------
    violations : sequence of str
        One sentence per violation, in AWS's words, in the order of the request's shape. The message lists 50 at most,
        and how many more there are. Whoever looks for violations may stop at MOST_VIOLATIONS.

    Examples
    --------
    >>> import shadowsim as ss
    >>> request = ss.default_scenario().to_dict()["experiment"]
    >>> try:
    ...     ss.Experiment.from_request(request | {"Type": "Shadow", "Name": "a b"})
    ... except ss.ValidationError as error:
    ...     len(error.violations)
    2
    """

    code = "ValidationException"
    http_status = 400

    def __init__(self, violations: Sequence[str]):
        self.violations = tuple(violations)
        n, listed = len(self.violations), self.violations[:_MOST_LISTED]
        count = f"{n} or more" if n >= MOST_VIOLATIONS else str(n)
        more = [f"and {n - len(listed)} more"] if n > len(listed) else []
        noun = "error" if n == 1 else "errors"
        super().__init__(f"{count} validation {noun} detected: " + "; ".join([*listed, *more]))

    def __reduce__(self) -> tuple[type[ValidationError], tuple[tuple[str, ...]]]:
        return type(self), (self.violations,)


class SerializationError(ShadowsimError, ValueError):
    """A body that cannot be read at all: broken JSON, binary data, not an object.

    Examples
    --------
    >>> import shadowsim as ss
    >>> ss.Experiment.from_request('{"Name": ')
    Traceback (most recent call last):
    shadowsim.errors.SerializationError: request: broken JSON at line 1, column 10: Expecting value
    """

    code = "SerializationException"
    http_status = 400


class RefusedError(ShadowsimError, ValueError):
    """A valid request that SageMaker still refuses, in its own sentence ("Could not find model ...")."""

    code = "ValidationException"
    http_status = 400


class ResourceInUseError(ShadowsimError):
    """A name that is taken, or a resource that is in use."""

    code = "ResourceInUse"
    http_status = 400


class ResourceNotFoundError(ShadowsimError, LookupError):
    """An experiment, or a tagged resource, that does not exist."""

    code = "ResourceNotFound"
    http_status = 400


class ResourceLimitExceededError(ShadowsimError):
    """More instances than the account's quota."""

    code = "ResourceLimitExceeded"
    http_status = 400


class ConflictError(ShadowsimError):
    """An action that an experiment's status does not allow."""

    code = "ConflictException"
    http_status = 400


class ThrottlingError(ShadowsimError):
    """More requests per second than the account's quota."""

    code = "ThrottlingException"
    http_status = 400


class UnknownOperationError(ShadowsimError, LookupError):
    """An action that does not exist, or that the server does not implement."""

    code = "UnknownOperationException"
    http_status = 400


class UnknownEndpointError(ShadowsimError, LookupError):
    """An invocation of an endpoint that does not exist; its code is the runtime's, not the control plane's."""

    code = "ValidationError"
    http_status = 400


class InputError(ShadowsimError, ValueError):
    """A scenario, a file or an option that cannot be used.

    Parameters
    ----------
    path : str
        A path in the scenario file (`services.Shadow-01.time.mean_s`), a file name, or an option.
    constraint : str
        The constraint, a sentence without its subject ("must be > 0").
    *value : object
        The offending value; left out when it would not help. At most one.
    hint : str
        A suggestion, as from `did_you_mean`; it ends the message.

    Examples
    --------
    >>> import shadowsim as ss
    >>> ss.default_scenario().replace({"run.seed": -1})
    Traceback (most recent call last):
    shadowsim.errors.InputError: run.seed: must be an integer from 0 to 18446744073709551615, got -1
    """

    code = "ValidationException"
    http_status = 400

    def __init__(self, path: str, constraint: str, *value: object, hint: str = ""):
        self.path, self.constraint, self.value, self.hint = path, constraint, value, hint
        quote = "'" if value and isinstance(value[0], str) else ""  # so that the text '5' differs from the number 5
        got = f", got {quote}{shown(value[0])}{quote}" if value else ""
        super().__init__(f"{path}: {constraint}{got}{hint}")

    @property
    def each(self) -> tuple[InputError, ...]:
        """The single errors that it consists of: itself, or those of `CombinedInputError`."""
        return (self,)

    def __reduce__(self) -> tuple[Callable[..., InputError], tuple[object, ...]]:
        return partial(type(self), hint=self.hint), (self.path, self.constraint, *self.value)


class CombinedInputError(InputError):
    """Several errors of one input; `path`, `constraint` and `value` are those of the first.

    Parameters
    ----------
    errors : sequence of InputError
        At least two, in the order of the input.
    """

    def __init__(self, errors: Sequence[InputError]):
        first = errors[0]
        super().__init__(first.path, first.constraint, *first.value, hint=first.hint)
        self.errors = tuple(errors)
        self.args = ("\n".join([f"{len(errors)} errors:", *map(str, errors)]),)

    @property
    def each(self) -> tuple[InputError, ...]:
        """The single errors."""
        return self.errors

    def __reduce__(self) -> tuple[Callable[..., InputError], tuple[object, ...]]:
        return type(self), (self.errors,)


class Collector:
    """Collects the errors of parts that do not depend on each other, so that all are reported at once.

    Each part is read in a `with` block of its own, which an `InputError` or a `ValidationError` ends. `check` raises
    what was collected.
    """

    def __init__(self) -> None:
        self._errors: list[InputError] = []
        self._violations: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, InputError):
            known = set(map(str, self._errors))
            self._errors += [one for one in error.each if str(one) not in known]
        elif isinstance(error, ValidationError):
            self._violations += error.violations
        return isinstance(error, InputError | ValidationError)

    def check(self) -> None:
        """Raise the collected errors as one, a single error as it was; do nothing without any."""
        if self._violations:
            raise ValidationError([*self._violations, *map(str, self._errors)])
        if len(self._errors) > 1:
            raise CombinedInputError(self._errors)
        if self._errors:
            raise self._errors[0]


class StoreError(ShadowsimError, OSError):
    """A server's file that cannot be written, because the disk is full or gone."""

    code = "ServiceUnavailable"
    http_status = 503


class SimulationError(ShadowsimError, RuntimeError):
    """A run that failed its own checks: a defect in shadowsim, never bad input.

    Examples
    --------
    >>> import shadowsim as ss
    >>> issubclass(ss.SimulationError, RuntimeError)
    True
    """


class ExecutorError(ShadowsimError, RuntimeError):
    """An executor that has broken, is closed, or keeps losing the workers of its tasks.

    Examples
    --------
    >>> import shadowsim as ss
    >>> issubclass(ss.ExecutorError, RuntimeError)
    True
    """


def shown(value: object, depth: int = 3) -> str:
    """Return a value as text for a message: AWS's notation, one line, printable, at most 120 characters."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case int() if value.bit_length() > 400:  # Python refuses to print integers of more than 4,300 digits
            text = f"an integer of {value.bit_length()} bits"
        case str() | Number() | PurePath():
            text = str(value)
        case date():
            text = value.isoformat()
        case Mapping() | list() | tuple() if depth == 0:
            text = "..."
        case Mapping():
            entries = islice(value.items(), 9)
            text = f"{{{', '.join(f'{shown(k, depth - 1)}={shown(v, depth - 1)}' for k, v in entries)}}}"
        case list() | tuple():
            text = f"[{', '.join(shown(v, depth - 1) for v in value[:9])}]"
        case _:  # its repr could be long, or raise
            text = f"a {type(value).__name__}"
    if len(text) > _MAX_SHOWN:
        text = text[: _MAX_SHOWN - 3] + "..."
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_kind(value: object) -> str:
    """Return a value's kind in JSON's words ("a string", "null"); other objects by the name of their class."""
    return next((name for types, name in _KINDS if isinstance(value, types)), f"a {type(value).__name__}")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean X?" for the known name nearest to `name`, or "" when none is as near as `cutoff`."""
    matches = get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"; did you mean {matches[0]}?" if matches else ""
