"""The calibration profile: how much the output of each slot changes from step to step in uncached runs, from which a
search makes its first schedules. Keeps the last outputs of every slot, as many as there are lags.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import EvocacheError
from ..formats import Grid
from .pipeline import Item, Pipeline, Setup

#: The largest distance in steps over which changes are measured.
LAGS = 5


class Recorder:
    """Sums relative changes |y(t) - y(t - lag)| / |y(t)| over runs; index ((lag - 1) * steps + t) * slots + slot."""

    def __init__(self, steps: int, slots: int) -> None:
        self.steps, self.slots = steps, slots
        self.lags = min(LAGS, steps - 1)
        self._sums = [0.0] * (self.lags * steps * slots)
        self._runs = 0

    def begin(self) -> None:
        """Starts a run, which does not look back into another."""
        self._runs += 1
        self._recent: list[deque[torch.Tensor]] = [deque(maxlen=self.lags) for _ in range(self.slots)]
        self._passes: list[int] = [0] * self.slots

    def record(self, slot: int, output: Any, passes: int = 1) -> None:
        """An output. Of several passes of guidance in a step, the first counts."""
        step, number = divmod(self._passes[slot], passes)
        self._passes[slot] += 1
        if number or step >= self.steps:
            return
        flat = torch.cat([part.detach().float().flatten() for part in _tensors(output)])
        size = float(flat.abs().sum())
        for lag, older in enumerate(self._recent[slot]):
            difference = float((flat - older).abs().sum())
            change = difference / size if size else float(difference > 0)
            self._sums[(lag * self.steps + step) * self.slots + slot] += change
        self._recent[slot].appendleft(flat)

    def changes(self) -> list[float]:
        """The means over the runs."""
        found = [value / max(1, self._runs) for value in self._sums]
        if not all(map(math.isfinite, found)):
            raise EvocacheError("the uncached run has outputs that are not finite")
        return found


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for part in output for tensor in _tensors(part)] if isinstance(output, (tuple, list)) else []


def measure(pipeline: Pipeline, items: Sequence[Item], setup: Setup, steps: int, grid: Grid | None) -> Recorder | None:
    """The profile of uncached runs of these prompts, one by one. `None` for a single step."""
    if steps < 2:
        return None
    recorder = Recorder(steps, len(pipeline.layout))
    calls = [0]
    handles = [
        t.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1)) for t in pipeline.transformers
    ]
    try:
        pipeline.watch(items[0], setup, steps, grid, lambda _, run: run())
        passes = max(1, calls[0] // steps)
    finally:
        for handle in handles:
            handle.remove()

    def see(slot: int, run: Callable[[], Any]) -> Any:
        output = run()
        recorder.record(slot, output, passes)
        return output

    for item in items:
        recorder.begin()
        pipeline.watch(item, setup, steps, grid, see)
    return recorder
