"""`attach`: run a caching schedule in a pipeline of diffusers, without a fork and without replacing its code.

attachment = evocache.attach(pipe, "best.json")
pipe(prompt, **attachment.settings)
evocache.detach(pipe)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..errors import AttachError, CoordinatorError
from ..formats import ScheduleFile, read_file
from ..layout import Layout
from ..schedule import Schedule
from .attachment import Attachment
from .lane import Counts
from .slots import Slots, find

__all__ = ["Attachment", "Counts", "attach", "detach", "layout_of"]

_attached: WeakKeyDictionary[Any, Attachment] = WeakKeyDictionary()
#: The attributes of a pipeline that may hold a denoising transformer. Wan 2.2 has two, with a boundary between them.
_NAMES = ("transformer", "transformer_2")


def attach(
    pipe: Any,
    schedule: Schedule | ScheduleFile | str | PathLike[str] | None = None,
    *,
    coordinator: str | None = None,
    search: str | None = None,
    min_quality_ratio: float | None = None,
    where: Sequence[str] = (),
    connection: Mapping[str, Any] | None = None,
    layout: Layout | str | None = None,
    steps: Literal["exact", "resample"] = "exact",
    compile: bool | Mapping[str, Any] = False,
    strict: bool = False,
) -> Attachment:
    """Runs a schedule in a pipeline: a `Schedule`, a file in any format of `evocache.formats`, or the fastest of a
    search that keeps `min_quality_ratio` of the uncached quality and every condition in `where`, from a coordinator.

    `connection`: more arguments of `Client`, such as `ca` and `token`. `layout`: a layout that you edited; see
    `layout_of`. `steps="resample"` lets a run have another step count than the schedule, which is then mapped by
    relative time. `compile`: compile the computed modules with `torch.compile` (`True`, or its arguments); decisions
    stay outside of the graphs. If the coordinator cannot answer, the pipeline stays uncached and a warning says why;
    with `strict` it is an error.

    A pipeline has one attachment at a time; attaching again replaces it.
    """
    if steps not in ("exact", "resample"):
        raise ValueError(f"steps must be 'exact' or 'resample', not '{steps}'")
    asked = coordinator is not None or search is not None
    if (schedule is None) != asked or (asked and (coordinator is None or search is None)):
        raise ValueError("give either a schedule, or a coordinator and a search")
    if schedule is not None and (min_quality_ratio is not None or where or connection or strict):
        raise ValueError("min_quality_ratio, where, connection and strict are for a coordinator, not for a schedule")
    if isinstance(layout, str):
        layout = Layout.parse(layout)
    transformers = transformers_of(pipe, layout)
    file: ScheduleFile | None
    if coordinator is not None and search is not None:
        file = _ask(coordinator, search, min_quality_ratio, where, connection or {}, strict)
    elif isinstance(schedule, ScheduleFile):
        file = schedule
    elif isinstance(schedule, Schedule):
        file = ScheduleFile(schedule, {})
    elif schedule is not None:
        file = _read(schedule, next(iter(transformers.values()))[1].layout)
    own = next(iter(transformers.values()))[1].layout
    if file is not None and file.schedule.layout != own:
        raise AttachError(f"the schedule is for layout {file.schedule.layout}, but the pipeline has {own}")
    previous = _attached.get(pipe)
    if previous is not None:
        previous.detach()
    wrap = None
    if compile:
        options = dict(compile) if isinstance(compile, Mapping) else {}
        wrap = lambda forward: torch.compile(forward, **options)  # noqa: E731
    try:
        attachment = Attachment(pipe, transformers, file, resample=steps == "resample", wrap=wrap)
    except BaseException:
        if previous is not None:
            del _attached[pipe]
        raise
    _attached[pipe] = attachment
    return attachment


def detach(pipe: Any) -> None:
    """Takes the schedule off a pipeline, which is then as it was before `attach`. Does nothing if there is none."""
    attachment = _attached.get(pipe)
    if attachment is not None:
        attachment.detach()
        del _attached[pipe]


def layout_of(pipe: Any) -> Layout:
    """The layout of a pipeline: what its schedules decide on."""
    return next(iter(transformers_of(pipe).values()))[1].layout


def transformers_of(pipe: Any, layout: Layout | None = None) -> dict[str, tuple[nn.Module, Slots]]:
    """The denoising transformers of a pipeline with their slots. All must have the same layout."""
    found: dict[str, tuple[nn.Module, Slots]] = {}
    for name in _NAMES:
        module = getattr(pipe, name, None)
        if not isinstance(module, nn.Module):
            continue
        if hasattr(module, "_orig_mod") or any(m._compiled_call_impl is not None for m in module.modules()):
            raise AttachError(
                f"the {name} of the pipeline is compiled, as a whole or by blocks, and its graphs would hold the "
                "decisions of a schedule: leave it uncompiled and pass compile=True"
            )
        found[name] = (module, find(module, layout))
    if not found:
        raise AttachError(
            f"{type(pipe).__name__} has no transformer; it has {', '.join(_components(pipe)) or 'nothing'}"
        )
    layouts = {str(slots.layout) for _, slots in found.values()}
    if len(layouts) > 1:
        raise AttachError(
            f"the transformers of {type(pipe).__name__} have different layouts: {', '.join(sorted(layouts))}"
        )
    return found


def _read(path: str | PathLike[str], layout: Layout) -> ScheduleFile:
    file = read_file(path, layout)
    for lost in file.lost:
        warnings.warn(f"evocache: '{path}': {lost}", RuntimeWarning, stacklevel=3)
    return file


def _components(pipe: Any) -> list[str]:
    components = getattr(pipe, "components", None)
    return list(components) if isinstance(components, Mapping) else []


def _ask(
    coordinator: str,
    search: str,
    min_quality_ratio: float | None,
    where: Sequence[str],
    connection: Mapping[str, Any],
    strict: bool,
) -> ScheduleFile | None:
    from ..client import Client

    try:
        with Client(coordinator, **connection) as client:
            return client.best(search, where=where, min_quality_ratio=min_quality_ratio).file
    except CoordinatorError as error:
        if strict:
            raise
        warnings.warn(f"evocache: the pipeline stays uncached: {error}", RuntimeWarning, stacklevel=3)
        return None
