"""A diffusers pipeline as something that draws prompts, uncached or with a schedule, and says how long that took.

The time begins at the first call of the transformer, so text encoding is left out in every pipeline, whatever its
encoders are, and ends when the pipeline returns. Knows nothing of coordinators and metrics.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..attachment import attach, detach, layout_of, transformers_of
from ..attachment.attachment import Attachment
from ..attachment.slots import module_at
from ..errors import EvocacheError
from ..formats import Grid, ScheduleFile
from ..schedule import Schedule

Watcher = Callable[[int, Callable[[], Any]], Any]


class Cancelled(Exception):
    """The run was told to end."""


@dataclass(frozen=True)
class Item:
    """A prompt, or the number or name of a class, and the seed of its noise."""

    text: str
    seed: int


@dataclass(frozen=True)
class Setup:
    """How every picture of a search is drawn."""

    guidance_scale: float
    negative_prompt: str = ""
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Drawn:
    """Pictures `[n, 3, h, w]` or videos `[n, frames, 3, h, w]` in 0 to 1 on the CPU, seconds for all of them, and the
    peak bytes of stored outputs of all of them."""

    pictures: torch.Tensor
    seconds: float
    peak_cache_bytes: int = 0


class Pipeline:
    def __init__(self, pipe: Any, arguments: Mapping[str, Any] | None = None, compile: bool = False) -> None:
        self.pipe = pipe
        self.cancel = threading.Event()
        self.layout = layout_of(pipe)
        self.transformers = [module for module, _ in transformers_of(pipe).values()]
        self.compile = compile
        self._parameters = inspect.signature(type(pipe).__call__).parameters
        self._arguments = {**self._defaults(), **(arguments or {})}
        unknown = [name for name in self._arguments if name not in self._parameters]
        if unknown:
            raise EvocacheError(f"{type(pipe).__name__} takes no argument '{unknown[0]}'")
        self._started: float | None = None
        pipe.set_progress_bar_config(disable=True)
        for transformer in self.transformers:
            transformer.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)

    def _defaults(self) -> dict[str, Any]:
        """Arguments that make a pipeline draw what it is asked for, in the size that it is asked for."""
        chosen = {"use_resolution_binning": False, "clean_caption": False, "output_type": "pt"}
        limit = getattr(getattr(self.pipe, "tokenizer", None), "model_max_length", None)
        asked = self._parameters.get("max_sequence_length")
        default = getattr(asked, "default", None)
        only = not hasattr(self.pipe, "tokenizer_2")
        if only and isinstance(default, int) and isinstance(limit, int) and limit < default:
            # The only tokenizer has fewer positions than the pipeline asks for by default.
            chosen["max_sequence_length"] = limit
        return {name: value for name, value in chosen.items() if name in self._parameters}

    def _before(self, *_: Any) -> None:
        if self.cancel.is_set():
            raise Cancelled
        if self._started is None:
            self._wait()
            self._started = time.perf_counter()

    def _wait(self) -> None:
        if self.pipe.device.type == "cuda":
            torch.cuda.synchronize(self.pipe.device)

    @property
    def samples_on_grids(self) -> bool:
        """Whether runs can be told timesteps and order, or noise levels."""
        order = hasattr(self.pipe.scheduler.config, "solver_order")
        return "sigmas" in self._parameters or (order and "timesteps" in self._parameters)

    @contextmanager
    def attached(self, file: ScheduleFile) -> Iterator[Attachment]:
        """The pipeline with a schedule, for as long as the block runs."""
        attachment = attach(self.pipe, file, compile=self.compile)
        try:
            yield attachment
        finally:
            detach(self.pipe)

    def watch(self, item: Item, setup: Setup, steps: int, grid: Grid | None, see: Watcher) -> None:
        """Draws one picture and computes everything; `see(slot, run)` runs each slot and returns its output."""
        found = transformers_of(self.pipe)
        slots = {
            id(module_at(module, path)): index
            for module, parts in found.values()
            for index, path in enumerate(parts.paths)
        }

        def wrap(forward: Any) -> Any:
            slot = slots[id(forward.__self__)]
            return lambda *args, **kwargs: see(slot, lambda: forward(*args, **kwargs))

        file = ScheduleFile(Schedule.all_compute(self.layout, steps), {}, grid)
        attachment = Attachment(self.pipe, found, file, wrap=wrap)
        try:
            self.call([item], setup, attachment.settings)
        finally:
            attachment.detach()

    def draw(self, items: Sequence[Item], setup: Setup, file: ScheduleFile) -> Drawn:
        """Draws a batch with a schedule."""
        with self.attached(file) as attachment:
            drawn = self.call(items, setup, attachment.settings)
            return Drawn(drawn.pictures, drawn.seconds, attachment.counts.peak_bytes)

    def draw_uncached(self, items: Sequence[Item], setup: Setup, steps: int, grid: Grid | None) -> Drawn:
        """Draws a batch as the pipeline does it by itself. Compiled, or on a grid, it is the schedule that computes
        everything, which does the same."""
        if grid is not None or self.compile:
            return self.draw(items, setup, ScheduleFile(Schedule.all_compute(self.layout, steps), {}, grid))
        return self.call(items, setup, {"num_inference_steps": steps})

    @torch.no_grad()
    def call(self, items: Sequence[Item], setup: Setup, settings: Mapping[str, Any]) -> Drawn:
        for name in settings:
            if name not in self._parameters:
                raise EvocacheError(f"{type(self.pipe).__name__} takes no {name}, which the grid of the schedule needs")
        self._started = None
        output = self.pipe(**self._call_arguments(items, setup), **settings)
        self._wait()
        ended = time.perf_counter()
        if self._started is None:
            raise EvocacheError(f"{type(self.pipe).__name__} did not call its transformer")
        return Drawn(_pictures(output), ended - self._started)

    def _call_arguments(self, items: Sequence[Item], setup: Setup) -> dict[str, Any]:
        known = self._parameters
        given: dict[str, Any] = {"generator": [torch.Generator("cpu").manual_seed(item.seed) for item in items]}
        if "prompt" in known:
            given["prompt"] = [item.text for item in items]
        elif "class_labels" in known:
            given["class_labels"] = [self._label(item.text) for item in items]
        else:
            raise EvocacheError(f"{type(self.pipe).__name__} takes neither prompts nor classes")
        if "negative_prompt" in known and setup.guidance_scale > 1:
            given["negative_prompt"] = setup.negative_prompt
        # Qwen-Image has guidance in two passes under this name, and `guidance_scale` for distilled models only.
        by_passes = type(self.pipe).__name__.startswith("QwenImage")
        given["true_cfg_scale" if by_passes else "guidance_scale"] = setup.guidance_scale
        if setup.height is not None:
            given["height"] = setup.height
        if setup.width is not None:
            given["width"] = setup.width
        return {**given, **self._arguments}

    def _label(self, text: str) -> int:
        if text.strip().isdigit():
            return int(text)
        labels = {name.lower(): number for name, number in getattr(self.pipe, "labels", {}).items()}
        if text.strip().lower() not in labels:
            raise EvocacheError(f"'{text}' is neither a number nor a class of the model")
        return int(labels[text.strip().lower()])


def _pictures(output: Any) -> torch.Tensor:
    """The pictures or videos of an output, on the CPU."""
    found = getattr(output, "images", None)
    if found is None:
        found = getattr(output, "frames", None)
    if found is None:
        raise EvocacheError(f"{type(output).__name__} has neither images nor frames")
    if isinstance(found, list):
        found = torch.stack([torch.as_tensor(part) for part in found])
    pictures = torch.as_tensor(found).float().cpu()
    # Some pipelines give arrays with the colors last, whatever they are asked for.
    return pictures.movedim(-1, -3) if pictures.shape[-1] == 3 and pictures.shape[-3] != 3 else pictures
