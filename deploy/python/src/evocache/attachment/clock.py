"""Where a pipeline is in its denoising loop, read from its scheduler: which run, which step, of how many.

Only Wan's pipeline tells its hooks the step, so the clock asks what every loop advances. A new run is a new tensor of
timesteps, which `set_timesteps` makes: also after a run that ended in an exception. Schedulers that count their steps
(`step_index`) are asked; for the others, such as DDIM, a step is a new value of the transformer's `timestep`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AttachError


@dataclass(frozen=True)
class Moment:
    """A step of a run. `first` is true for the first call of the transformer in a run."""

    first: bool
    step: int
    steps: int


class Clock:
    def __init__(self) -> None:
        # The object itself, not its id: an id is used again once the tensor is gone.
        self._run: Any = None
        self._base = 0
        self._step = 0
        self._steps = 0
        self._timestep: float | None = None

    def reset(self) -> None:
        """The next call is the first of a run."""
        self._run = None

    def read(self, scheduler: Any, timestep: Any) -> Moment:
        """The moment of a call of the transformer with this timestep."""
        timesteps = getattr(scheduler, "timesteps", None)
        if timesteps is None:
            raise AttachError(f"{type(scheduler).__name__} has no timesteps, so the step cannot be known")
        first = timesteps is not self._run
        counts = hasattr(scheduler, "step_index")
        if first:
            self._run, self._step, self._timestep = timesteps, 0, None
            self._base = self._begin(scheduler) if counts else self._find(timesteps, timestep)
            self._steps = len(timesteps) - self._base
        if counts:
            index = scheduler.step_index
            self._step = 0 if index is None else int(index) - self._base
        else:
            self._step += self._moved(timestep)
        if not 0 <= self._step < self._steps:
            raise AttachError(
                f"the transformer is called at step {self._step} of a run of {self._steps} steps; call "
                "set_timesteps of the scheduler before each run"
            )
        return Moment(first, self._step, self._steps)

    def _begin(self, scheduler: Any) -> int:
        """The index of the first step, which is not 0 where a run begins with a picture."""
        index = scheduler.step_index
        begin = getattr(scheduler, "begin_index", None) if index is None else index
        return 0 if begin is None else int(begin)

    def _find(self, timesteps: Any, timestep: Any) -> int:
        value = _number(timestep)
        if value is None:
            return 0
        found = torch.as_tensor(timesteps).detach().cpu().flatten().tolist()
        return found.index(value) if value in found else 0

    def _moved(self, timestep: Any) -> int:
        value, before = _number(timestep), self._timestep
        if value is None:
            raise AttachError("the transformer is called without a timestep, so the step cannot be known")
        self._timestep = value
        return int(before is not None and value != before)


def _number(timestep: Any) -> float | None:
    """The value of a timestep: a number, or a tensor with the same value for every picture."""
    if isinstance(timestep, torch.Tensor):
        return float(timestep.detach().flatten()[0]) if timestep.numel() else None
    return float(timestep) if isinstance(timestep, (int, float)) else None
