"""Builds the cells of a grid of settings over a scenario, each a complete scenario.

A grid is a mapping of paths to lists of values, which stands for every combination of them, with the last path varying
fastest; or a list of mappings, which are the cells themselves. All cells are validated before any is run, so that a
typing error in the last one is not found after hours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import cast

from shadowsim.errors import InputError, ShadowsimError, shown
from shadowsim.scenario.defaults import KEY_NAMES
from shadowsim.scenario.paths import parse_set, plain, target_of, value_at
from shadowsim.scenario.scenario import Scenario

Grid = Mapping[str, Iterable[object]] | Iterable[Mapping[str, object]]

MAX_CELLS = 100_000
_NOT_FOR_A_GRID = {
    "run.replications": "cannot vary in a grid: use the sweep's `replications`",
    "run.precision": "cannot vary in a grid: use the sweep's `replications`",
    "run.sample_requests": "cannot vary in a grid: a sweep keeps no requests",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of a grid.

    Attributes
    ----------
    name : str
        Its name in errors: its number, from 0, and its settings.
    settings : mapping of str to object
        JSON values by path, in the grid's order.
    document : str
        Its scenario as JSON text, with keys in the order of the scenario's file.
    """

    name: str
    settings: Mapping[str, object]
    document: str


def cells_of(base: Scenario, grid: Grid) -> list[Cell]:
    """Return the valid cells of a grid, in its order.

    Raises
    ------
    InputError
        When the grid is not a grid, or a path or a value cannot be used; the error names the first such cell.
    """
    points = _product(grid) if isinstance(grid, Mapping) else _listed(grid)
    if not 1 <= len(points) <= MAX_CELLS:
        raise InputError("grid", f"must have 1 to {MAX_CELLS:,} cells", len(points))
    cells = []
    for i, settings in enumerate(points):
        name = f"cell {i} ({shown(settings)[1:-1]})"
        try:
            _check_paths(base, settings)
            document = text_of(base.replace(settings))
        except ShadowsimError as error:
            raise InputError("grid", f"{name}: {error}") from error
        cells.append(Cell(name, settings, document))
    return cells


def text_of(scenario: Scenario) -> str:
    """Return a scenario as one line of JSON text.

    Keys keep their order, because the terms of a linear law are added in the order of the file, and the last bits of a
    sum of floats depend on that.
    """
    return json.dumps(scenario.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def columns_of(base: Scenario, cells: Iterable[Cell]) -> dict[str, list[object]]:
    """Return lists by path with one item per cell: the value, or a text for it in a column with lists or objects.

    Where a cell of a listed grid does not set a path, its value is the scenario's, or None if that leaves it out.
    """
    cells = list(cells)
    columns: dict[str, list[object]] = {}
    for path in dict.fromkeys(path for cell in cells for path in cell.settings):
        default = value_at(base.document, _target(base, path))
        values = [cell.settings.get(path, default) for cell in cells]
        nested = any(isinstance(value, Mapping | list) for value in values)
        columns[path] = [label(value) for value in values] if nested else values
    return columns


def label(value: object) -> str:
    """Return a JSON value as short text: `law=lognormal mean_s=0.02 scv=0.25`, `[1, 1.2]`."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_inner(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_inner, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def grid_of(settings: Iterable[str]) -> dict[str, list[object]]:
    """Parse the grid of a command line's `PATH=VALUE,VALUE,...`.

    A value that is not JSON is taken as text. Commas inside brackets, braces or double quotes do not separate values.

    Raises
    ------
    InputError
        When there is no `=`, a value is empty, or a path is given twice.
    """
    grid: dict[str, list[object]] = {}
    for text in settings:
        path, _ = parse_set(text)
        if path in grid:
            raise InputError("--set", f"must not give {path} twice", text)
        values = _split(text.partition("=")[2])
        if not all(value.strip() for value in values):
            raise InputError("--set", "must be PATH=VALUE,VALUE,... without an empty value", text)
        grid[path] = [parse_set(f"{path}={value.strip()}")[1] for value in values]
    return grid


def _product(grid: Mapping[str, Iterable[object]]) -> list[dict[str, object]]:
    axes: dict[str, list[object]] = {}
    for path, values in grid.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InputError(f"grid.{path}", "must be a list of values", values)
        axes[_path(path)] = cast(list[object], plain(list(values)))
        if not axes[path]:
            raise InputError(f"grid.{path}", "must have at least one value")
    n = math.prod(map(len, axes.values()))
    if n > MAX_CELLS:  # before they are made
        raise InputError("grid", f"must have 1 to {MAX_CELLS:,} cells", n)
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def _listed(grid: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    if isinstance(grid, str | bytes) or not isinstance(grid, Iterable):
        raise InputError("grid", "must be a mapping of paths to lists of values, or a list of mappings", grid)
    points = []
    for i, settings in enumerate(grid):
        if not isinstance(settings, Mapping):
            raise InputError(f"grid.{i}", "must be a mapping of paths to values", settings)
        points.append({_path(path): plain(value) for path, value in settings.items()})
    return points


def _path(path: object) -> str:
    if not isinstance(path, str):
        raise InputError("grid", "must have texts for its paths", path)
    return path


def _target(base: Scenario, path: str) -> str:
    names = {"source": base.experiment.source.name, "shadow": base.experiment.shadow.name}
    return target_of(path, base.document, names, KEY_NAMES)


def _check_paths(base: Scenario, settings: Mapping[str, object]) -> None:
    """Refuse two names of one path, of which the later would win, and settings that a sweep does not use."""
    seen: dict[str, str] = {}
    for path in settings:
        target = _target(base, path)
        if target in _NOT_FOR_A_GRID:
            raise InputError(path, _NOT_FOR_A_GRID[target])
        if target in seen:
            raise InputError(path, f"must not be given together with {seen[target]}, which means the same")
        seen[target] = path


def _inner(value: object) -> str:
    return f"{{{label(value)}}}" if isinstance(value, Mapping) else label(value)


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets, braces and double quotes."""
    pieces, depth, quoted, escaped = [""], 0, False, False
    for sign in text:
        if sign == "," and not depth and not quoted:
            pieces.append("")
            continue
        pieces[-1] += sign
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = sign == "\\", sign != '"'
        elif sign == '"':
            quoted = True
        else:
            depth = max(depth + (sign in "[{") - (sign in "]}"), 0)
    return pieces
