"""What the formats share: a schedule with what its file says, and reading JSON with care."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import FormatError, shown
from ..schedule import Schedule


@dataclass(frozen=True)
class Grid:
    """How runs of a step count sample, where this differs from the model folder: order and timesteps of DPM-Solver++,
    or noise levels of flow matching before the shift."""

    steps: int
    solver_order: int | None = None
    timesteps: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise FormatError(f"the grid of {self.steps} steps {problem}")

    def _problem(self) -> str:
        if self.solver_order is None and not self.timesteps and not self.sigmas:
            return "says nothing: give solver_order, timesteps or sigmas"
        if self.sigmas and (self.timesteps or self.solver_order is not None):
            return "has sigmas, which exclude timesteps and solver_order"
        if self.solver_order is not None and not 1 <= self.solver_order <= 3:
            return f"has solver_order {self.solver_order}; it must be 1 to 3"
        for name, values in (("timesteps", self.timesteps), ("sigmas", self.sigmas)):
            if values and len(values) != self.steps:
                return f"has {len(values)} {name}"
            if any(a <= b for a, b in pairwise(values)):
                return f"has {name} that do not decrease"
        if self.timesteps and not 0 <= self.timesteps[-1] <= self.timesteps[0] < 100_000:
            return "has timesteps outside of 0 to 99999"
        if any(not (math.isfinite(s) and 0 < s <= 1) for s in self.sigmas):
            return "has sigmas outside of (0, 1]"
        return ""

    def __str__(self) -> str:
        parts = []
        if self.solver_order is not None:
            parts.append(f"solver order {self.solver_order}")
        if self.timesteps:
            parts.append("timesteps " + ",".join(map(str, self.timesteps)))
        if self.sigmas:
            parts.append("sigmas " + ",".join(map(str, self.sigmas)))
        return ", ".join(parts)


@dataclass(frozen=True)
class ScheduleFile:
    """A schedule with what its file says about it.

    `made_with`: settings that it was made with, such as `guidance_scale`; they do not apply by themselves. `grid`: how
    its runs sampled when it was measured, `None` for the model folder's way. `lost`: what the file does that a
    schedule cannot say, for people.
    """

    schedule: Schedule
    made_with: Mapping[str, str]
    grid: Grid | None = None
    lost: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """What evocache's own format keeps of this beside the schedule."""
        sampling: dict[str, Any] = {name: _plain(value) for name, value in self.made_with.items()}
        if self.grid is not None:
            grid = {
                "steps": self.grid.steps,
                "solver_order": self.grid.solver_order,
                "timesteps": list(self.grid.timesteps),
                "sigmas": list(self.grid.sigmas),
            }
            sampling["grids"] = [grid]
        return {"made_for": {"sampling": sampling}}

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the schedule in evocache's own format, with its grid and the settings that it was made with."""
        Path(path).write_text(self.schedule.dumps(about=self.about), encoding="utf-8")


def _plain(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"'{shown(key)}' is given twice")
        found[key] = value
    return found


def parse(text: str) -> dict[str, Any]:
    """The JSON object in a text."""
    try:
        data = json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise FormatError("not a schedule: a JSON object is needed")
    return data


def field_error(field: str, problem: object) -> FormatError:
    return FormatError(f"{shown(field, 200)}: {problem}")


def whole(value: object, field: str, low: int = 0, high: int = 2**32 - 1) -> int:
    """A whole number of a file."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise field_error(field, f"must be a whole number from {low} to {high}")
    return value


def mapping(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise field_error(field, "must be an object")
    return value


def books(value: object, field: str, rows: int, columns: int) -> list[list[bool]]:
    """A table of booleans of this shape, in which 0 and 1 are booleans too."""
    if not isinstance(value, list) or len(value) != rows:
        raise field_error(field, f"must be a list of {rows} steps")
    table = []
    for step, row in enumerate(value):
        if not isinstance(row, list) or len(row) != columns or any(cell not in (0, 1) for cell in row):
            raise field_error(f"{field}[{step}]", f"must be a list of {columns} booleans")
        table.append([bool(cell) for cell in row])
    return table
