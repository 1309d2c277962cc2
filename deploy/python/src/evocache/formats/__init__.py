"""Schedules as text: evocache's own JSON, ECAD's, SmoothCache's and InvarDiff's. `read` recognizes the format.

Own JSON says everything. The others are step- or component-level: what they cannot say is refused by `write`, and what
a file of theirs does beside a schedule is refused by `read` or told in `ScheduleFile.lost`.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from . import ecad, invardiff, own, smoothcache
from .common import Grid, ScheduleFile, parse

if TYPE_CHECKING:
    from ..layout import Layout
    from ..schedule import Schedule

__all__ = ["FORMATS", "Grid", "ScheduleFile", "read", "read_file", "write"]

FORMATS = ("own", "ecad", "smoothcache", "invardiff")
#: A file of the largest schedule has 262144 decisions; ECAD writes up to 40 bytes for each.
MAX_BYTES = 64 << 20


def read(text: str, layout: Layout | None = None) -> ScheduleFile:
    """Reads a schedule in any of the formats. `layout` is that of the model: SmoothCache's format does not say it, and
    the layout of any other file must be equal to it."""
    data = parse(text)
    if "evocache_schedule" in data:
        file = own.read(data)
    elif "cache_schedule" in data:
        file = ecad.read(data)
    elif "step_cache_book" in data:
        file = invardiff.read(data)
    elif data and all(isinstance(row, list) for row in data.values()):
        if layout is None:
            raise FormatError("a SmoothCache schedule does not say its model: pass the model's layout")
        file = smoothcache.read(data, layout)
    else:
        raise FormatError(
            "neither an evocache schedule (key 'evocache_schedule') nor one of ECAD ('cache_schedule'), InvarDiff "
            "('step_cache_book') or SmoothCache (lists of 0 and 1)"
        )
    if layout is not None and file.schedule.layout != layout:
        raise FormatError(f"the schedule is for layout {file.schedule.layout}, but the model has {layout}")
    return file


def read_file(path: str | PathLike[str], layout: Layout | None = None) -> ScheduleFile:
    """Reads a schedule file; see `read`."""
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"'{file}' has {size} bytes, more than any schedule ({MAX_BYTES})")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read schedule '{file}': {error}") from error
    try:
        return read(text, layout)
    except FormatError as error:
        raise FormatError(f"'{file}': {error}") from error


def write(
    schedule: Schedule, format: str = "own", *, name: str = "schedule", about: dict[str, Any] | None = None
) -> str:
    """Writes a schedule. `name` is ECAD's field of that name; `about` is evocache's own. Refuses what the format cannot
    express."""
    if format == "own":
        data = own.write(schedule, about)
        return json.dumps(data, indent=2) + "\n"
    if about is not None:
        raise FormatError(f"the format '{format}' has no field for what a schedule is about")
    if format == "ecad":
        return json.dumps(ecad.write(schedule, name)) + "\n"
    if format == "smoothcache":
        return json.dumps(smoothcache.write(schedule)) + "\n"
    if format == "invardiff":
        return json.dumps(invardiff.write(schedule)) + "\n"
    raise FormatError(f"'{format}' is not one of the formats {', '.join(FORMATS)}")
