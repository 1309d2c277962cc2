"""ECAD's format (arXiv 2506.15682, `cache_schedule`): a boolean per step, block and component, `true` = recompute.

PixArt blocks are `"0"`, … with `attn1`, `attn2`, `ff`; FLUX has double blocks `"0"`, … with `full_attn`, `full_ff`,
`full_ff_context` and single blocks `"single_0"`, … with `single_attn`, `single_proj_mlp`, `single_proj_out`. It has no
forecasts. Files that need more of ECAD's code than recompute and reuse are refused.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import FormatError, LayoutError, ScheduleError, shown
from ..layout import Layout, Slot
from ..schedule import Decision, Schedule
from .common import ScheduleFile, field_error, mapping, whole

_PIXART = ("attn1", "attn2", "ff")
_DOUBLE = ("full_attn", "full_ff", "full_ff_context")
_SINGLE = ("single_attn", "single_proj_mlp", "single_proj_out")
# Fields that do not affect what is computed; settings that a schedule was made with; functions of ECAD's own code.
_REMARKS = {"metrics", "attributes"}
_SETTINGS = {"height", "width", "guidance_scale", "weights"}
_FUNCTIONS = {"custom_compute_attn", "custom_compute_ff"}
_KNOWN = {"name", "num_blocks", "num_single_blocks", "num_inference_steps", "schedule"} | _REMARKS


def write(schedule: Schedule, name: str) -> dict[str, Any]:
    layout = schedule.layout
    counts = [group.count for group in layout.groups]
    if not any(_layout(counts[0], more) == layout for more in (None, *counts[1:2])):
        raise FormatError(f"ECAD's format has PixArt and FLUX models only, not {layout}")
    if schedule.forecasts:
        forecasts = schedule.decisions.count(Decision.FORECAST)
        raise FormatError(f"ECAD's format has recompute and reuse only; the schedule has {forecasts} forecasts")
    steps: dict[str, dict[str, dict[str, bool]]] = {}
    for step in range(schedule.steps):
        blocks = steps.setdefault(f"{step:03}", {})
        for index, slot in enumerate(layout.slots):
            block, component = _keys(layout, slot)
            computes = schedule.decisions[step * schedule.slots + index] == Decision.COMPUTE
            blocks.setdefault(block, {})[component] = computes
    file: dict[str, Any] = {"name": name, "num_blocks": counts[0]}
    if len(counts) == 2:
        file["num_single_blocks"] = counts[1]
    return {"cache_schedule": file | {"num_inference_steps": schedule.steps, "attributes": {}, "schedule": steps}}


def read(data: dict[str, Any]) -> ScheduleFile:
    made_with = _settings(data)
    file = mapping(data["cache_schedule"], "cache_schedule")
    other = next((name for name in file if name not in _KNOWN), None)
    if other is not None:
        raise field_error(f"cache_schedule.{other}", "is not a field of this format")
    blocks = whole(file.get("num_blocks"), "cache_schedule.num_blocks")
    steps = whole(file.get("num_inference_steps"), "cache_schedule.num_inference_steps")
    singles = file.get("num_single_blocks")
    if singles is not None:
        singles = whole(singles, "cache_schedule.num_single_blocks")
    try:
        layout = _layout(blocks, singles)
    except LayoutError as error:
        raise field_error("cache_schedule.num_blocks", error) from error
    by_step = _by_step(file.get("schedule"), steps)
    known: dict[str, set[str]] = {}
    for slot in layout.slots:
        block, component = _keys(layout, slot)
        known.setdefault(block, set()).add(component)
    for step, (key, rows) in by_step.items():
        _check_blocks(known, layout, rows, f"cache_schedule.schedule.{key}", step)

    def decide(step: int, index: int) -> Decision:
        block, component = _keys(layout, layout.slots[index])
        rows = by_step.get(step, ("", None))[1]
        parts = rows.get(block) if isinstance(rows, dict) else None
        told = parts.get(component) if isinstance(parts, dict) else None
        if not isinstance(told, bool):
            raise field_error(f"cache_schedule.schedule.{step:03}.{block}.{component}", "must be true or false")
        return Decision.COMPUTE if told else Decision.REUSE

    try:
        # Step 0 computes whatever its bits say.
        schedule = Schedule.from_fn(layout, steps, decide)
    except ScheduleError as error:
        raise field_error("cache_schedule.num_inference_steps", error) from error
    return ScheduleFile(schedule, made_with)


def _layout(blocks: int, singles: int | None) -> Layout:
    return Layout.pixart(blocks) if singles is None else Layout.flux(blocks, singles)


def _keys(layout: Layout, slot: Slot) -> tuple[str, str]:
    if len(layout.groups) == 1:
        return str(slot.block), _PIXART[slot.component]
    if slot.group == 0:
        return str(slot.block), _DOUBLE[slot.component]
    return f"single_{slot.block}", _SINGLE[slot.component]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _pipeline(field: str, name: object) -> FormatError:
    return field_error(field, f"'{shown(_shown(name))}' is a sampling pipeline, which a schedule cannot express")


def _settings(data: dict[str, Any]) -> dict[str, str]:
    """The fields beside `cache_schedule`: the settings. Refuses another pipeline."""
    made_with: dict[str, str] = {}
    for name, value in data.items():
        if name == "cache_schedule" or value is None:
            continue
        if name == "config":
            for inner, setting in mapping(value, name).items():
                if inner == "pipeline" and setting is not None:
                    raise _pipeline("config.pipeline", setting.get("name") if isinstance(setting, dict) else setting)
                if setting is not None:
                    made_with[f"config.{inner}"] = _shown(setting)
        elif name == "pipeline":
            raise _pipeline(name, value)
        elif name in _SETTINGS:
            made_with[name] = _shown(value)
        elif name not in _REMARKS:
            raise field_error(name, "is not a field of this format")
    return dict(sorted(made_with.items()))


def _by_step(value: object, steps: int) -> dict[int, tuple[str, Any]]:
    """The steps by number. As for Python's `int`, numbers may have leading zeros."""
    found: dict[int, tuple[str, Any]] = {}
    for key, rows in (value if isinstance(value, dict) else {}).items():
        field = f"cache_schedule.schedule.{key}"
        digits = key.strip().removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
            raise field_error(field, "is not a step number")
        step = int(digits)
        if step >= steps:
            raise field_error(field, f"num_inference_steps is {steps}, so the last step is {max(steps - 1, 0)}")
        if step in found:
            raise field_error(field, f"is step {step} again, which is also '{shown(found[step][0])}'")
        found[step] = (key, rows)
    return found


def _check_blocks(known: dict[str, set[str]], layout: Layout, rows: object, path: str, step: int) -> None:
    """Refuses blocks and components of a step that the model does not have."""
    for block, components in (rows if isinstance(rows, dict) else {}).items():
        if block not in known:
            raise field_error(f"{path}.{block}", f"the model has no such block: {layout}")
        for component, value in (components if isinstance(components, dict) else {}).items():
            field = f"{path}.{block}.{component}"
            if component in _FUNCTIONS:
                if isinstance(value, dict) and value:
                    name = shown(_shown(value.get("name")))
                    raise field_error(
                        field, f"'{name}' replaces what step {step} computes, which a schedule cannot express"
                    )
            elif component not in known[block]:
                raise field_error(field, "the block has no such component")
