"""evocache's own format: a line per slot with a letter per step, for people to read and compare.

    {"evocache_schedule": 1, "id": "…", "steps": 4,
     "layout": [{"group": "block", "count": 1, "components": ["attn1", "attn2", "ff"]}],
     "decisions": {"block.0.attn1": "CRRC", "block.0.attn2": "CRRR", "block.0.ff": "CCFF"}}

`C` computes, `R` reuses the output stored last, `F` extrapolates the last two. A component that only `proj_out` reads
is written `"proj_mlp>proj_out"`.
"""

from __future__ import annotations

from typing import Any

from ..errors import LayoutError, ScheduleError, shown
from ..layout import BlockGroup, Component, Layout
from ..schedule import LETTERS, Schedule
from .common import Grid, ScheduleFile, field_error, mapping, whole

VERSION = 1
_KNOWN = {"evocache_schedule", "id", "steps", "layout", "decisions", "about"}


def write(schedule: Schedule, about: dict[str, Any] | None) -> dict[str, Any]:
    groups = [
        {"group": group.name, "count": group.count, "components": [str(c) for c in group.components]}
        for group in schedule.layout.groups
    ]
    file: dict[str, Any] = {
        "evocache_schedule": VERSION,
        "id": schedule.id,
        "steps": schedule.steps,
        "layout": groups,
        "decisions": dict(schedule.rows()),
    }
    if about is not None:
        file["about"] = about
    return file


def read(data: dict[str, Any]) -> ScheduleFile:
    version = data["evocache_schedule"]
    if isinstance(version, bool) or version != VERSION:
        raise field_error("evocache_schedule", f"this program reads version {VERSION}, found {shown(version)}")
    other = next((name for name in data if name not in _KNOWN), None)
    if other is not None:
        raise field_error(other, 'is not a field of this format; "about" may have any content')
    layout = _layout(data.get("layout"))
    steps = whole(data.get("steps"), "steps")
    decisions = mapping(data.get("decisions"), "decisions")
    rows = [_row(decisions, layout.slot_name(slot), steps) for slot in range(len(layout))]
    if len(decisions) != len(rows):
        known = {layout.slot_name(slot) for slot in range(len(layout))}
        unknown = next(name for name in decisions if name not in known)
        raise field_error(f"decisions.{unknown}", "is not a slot of the layout")
    try:
        schedule = Schedule.from_fn(layout, steps, lambda step, slot: rows[slot][step])
    except ScheduleError as error:
        raise field_error("steps", error) from error
    claimed = data.get("id")
    if isinstance(claimed, str) and claimed != schedule.id:
        raise field_error(
            "id", f"is {shown(claimed)}, but the content has {schedule.id}; delete the field if you changed the file"
        )
    sampling = _get(data, "about", "made_for", "sampling")
    return ScheduleFile(schedule, _made_with(sampling), _grid(sampling, steps))


def _row(decisions: dict[str, Any], name: str, steps: int) -> list[int]:
    field, row = f"decisions.{name}", decisions.get(name)
    if not isinstance(row, str):
        raise field_error(field, "is missing")
    wrong = next((letter for letter in row if letter not in LETTERS), None)
    if wrong is not None:
        raise field_error(field, f"'{shown(wrong)}' is not one of C, R, F")
    if len(row) != steps:
        raise field_error(field, f"has {len(row)} letters for {steps} steps")
    if row and row[0] != "C":
        raise field_error(field, "step 0 must compute (C)")
    return [LETTERS.index(letter) for letter in row]


def _layout(value: object) -> Layout:
    wrong = field_error("layout", 'must be a list of { "group": name, "count": n, "components": [names] }')
    if not isinstance(value, list):
        raise wrong
    groups = []
    for group in value:
        if not isinstance(group, dict) or not isinstance(group.get("group"), str):
            raise wrong
        count, parts = group.get("count"), group.get("components")
        if isinstance(count, bool) or not isinstance(count, int) or not isinstance(parts, list):
            raise wrong
        if any(not isinstance(part, str) for part in parts):
            raise wrong
        groups.append(BlockGroup(group["group"], count, tuple(Component.parse(part) for part in parts)))
    try:
        return Layout(tuple(groups))
    except LayoutError as error:
        raise field_error("layout", error) from error


def _get(data: object, *path: str) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _made_with(sampling: object) -> dict[str, str]:
    """The settings that the schedule was measured with."""
    told = {name: _get(sampling, name) for name in ("guidance_scale", "height", "width")}
    return {name: f"{value:g}" for name, value in told.items() if isinstance(value, (int, float))}


def _grid(sampling: object, steps: int) -> Grid | None:
    """The grid that runs of this step count sampled on when the schedule was measured."""
    grids = _get(sampling, "grids")
    told = [grid for grid in grids if _get(grid, "steps") == steps] if isinstance(grids, list) else []
    if not told:
        return None
    grid, field = told[0], "about.made_for.sampling.grids"
    timesteps, sigmas = grid.get("timesteps") or [], grid.get("sigmas") or []
    if not isinstance(timesteps, list) or not isinstance(sigmas, list):
        raise field_error(field, "timesteps and sigmas must be lists of numbers")
    if any(isinstance(sigma, bool) or not isinstance(sigma, (int, float)) for sigma in sigmas):
        raise field_error(f"{field}.sigmas", "must be a list of numbers")
    order = grid.get("solver_order")
    return Grid(
        steps,
        None if order is None else whole(order, f"{field}.solver_order"),
        tuple(whole(step, f"{field}.timesteps") for step in timesteps),
        tuple(float(sigma) for sigma in sigmas),
    )
