"""SmoothCache's schedules (arXiv 2411.10510, package `dit-smoothcache`): `"attn1-3": [1, 0, …]` for the component
`attn1` of block 3, or `"attn1"` for that of every block; 1 runs the component, 0 returns its last output.

A component that no key names always runs. The format has one list of blocks, no forecasts, and no step count of its
own: it is the length of the lists. Its code returns the output that was computed last, as a schedule does.
"""

from __future__ import annotations

from typing import Any

from ..errors import FormatError, ScheduleError
from ..layout import Layout
from ..schedule import Decision, Schedule
from .common import ScheduleFile, field_error


def _only_group(layout: Layout) -> tuple[int, dict[str, int]]:
    if len(layout.groups) != 1 or any(c.feeds for c in layout.groups[0].components):
        raise FormatError(f"SmoothCache's format has models with one kind of block only, not {layout}")
    group = layout.groups[0]
    return group.count, {component.name: c for c, component in enumerate(group.components)}


def write(schedule: Schedule) -> dict[str, Any]:
    count, components = _only_group(schedule.layout)
    if schedule.forecasts:
        forecasts = schedule.decisions.count(Decision.FORECAST)
        raise FormatError(f"SmoothCache's format has run and reuse only; the schedule has {forecasts} forecasts")
    return {
        f"{name}-{block}": [int(letter == "C") for letter in schedule.row(block * len(components) + c)]
        for block in range(count)
        for name, c in components.items()
    }


def read(data: dict[str, Any], layout: Layout) -> ScheduleFile:
    count, components = _only_group(layout)
    steps = {len(row) for row in data.values()}
    if len(steps) != 1:
        raise FormatError(f"the lists of a SmoothCache schedule must be equally long, found lengths {sorted(steps)}")
    rows: dict[int, list[int]] = {}
    # What is said of one block comes before what is said of all.
    for key, row in sorted(data.items(), key=lambda item: "-" in item[0]):
        name, dash, block = key.rpartition("-") if "-" in key else (key, "", "")
        if name not in components:
            raise field_error(key, f"the blocks have no such component: {layout}")
        if dash and not (block.isascii() and block.isdigit() and len(block) < 6 and int(block) < count):
            raise field_error(key, f"the model has no such block: {layout}")
        if any(cell not in (0, 1) for cell in row):
            raise field_error(key, "must be a list of 0 and 1")
        if row and not row[0]:
            raise field_error(key, "the first step must run (1)")
        for b in [int(block)] if dash else range(count):
            rows[b * len(components) + components[name]] = row
    try:
        schedule = Schedule.from_fn(
            layout,
            steps.pop(),
            lambda step, slot: Decision.COMPUTE if slot not in rows or rows[slot][step] else Decision.REUSE,
        )
    except ScheduleError as error:
        raise FormatError(f"a SmoothCache schedule: {error}") from error
    return ScheduleFile(schedule, {})
