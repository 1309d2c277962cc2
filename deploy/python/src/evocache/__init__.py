"""Caching schedules for diffusion transformers.

`Schedule` reads, writes and costs schedules and needs nothing but Python. `attach` runs one in a diffusers pipeline
(extra `diffusers`), `Client` asks an evocache coordinator, and `evocache.worker` measures candidates for one (extra
`worker`). What needs torch or gRPC is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import PROTOCOL_VERSION, __version__
from .cost import CostModel
from .errors import AttachError, CoordinatorError, EvocacheError, FormatError, LayoutError, ScheduleError
from .formats import Grid, ScheduleFile
from .layout import BlockGroup, Component, Layout
from .schedule import Decision, Schedule

if TYPE_CHECKING:
    from .attachment import Attachment, attach, detach, layout_of
    from .client import Best, Client

__all__ = [
    "PROTOCOL_VERSION",
    "AttachError",
    "Attachment",
    "Best",
    "BlockGroup",
    "Client",
    "Component",
    "CoordinatorError",
    "CostModel",
    "Decision",
    "EvocacheError",
    "FormatError",
    "Grid",
    "Layout",
    "LayoutError",
    "Schedule",
    "ScheduleError",
    "ScheduleFile",
    "__version__",
    "attach",
    "detach",
    "layout_of",
]

_LATER = {
    "Attachment": "attachment",
    "attach": "attachment",
    "detach": "attachment",
    "layout_of": "attachment",
    "Best": "client",
    "Client": "client",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module 'evocache' has no attribute '{name}'")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
