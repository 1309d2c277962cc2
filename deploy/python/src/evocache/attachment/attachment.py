"""A schedule at work in a pipeline: one clock, and for each of its transformers the slots and the lanes of guidance.

Hooks and lanes are parts of their own; here they meet. The pipeline is held weakly, so that an attachment does not keep
it alive.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import AttachError
from ..formats import Grid, ScheduleFile
from ..layout import Layout
from ..schedule import Schedule
from . import hooks
from .clock import Clock, Moment
from .lane import Counts, Lane
from .slots import Slots, module_at

Wrap = Callable[[Any], Any]


def shapes_of(value: Any) -> Any:
    """The sizes of all tensors in the arguments of a call."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return tuple(shapes_of(part) for part in value)
    if isinstance(value, dict):
        return tuple((key, shapes_of(part)) for key, part in value.items() if part is not None)
    return None


def loses_its_second_half(transformer: nn.Module, before: Any, after: Any) -> bool:
    """Whether the batch of a class that puts the guided half first has lost the other one: Z-Image, when it stops to
    guide before its last step. Its text is padded to multiples of 32 tokens, which must stay equal."""
    if type(transformer).__name__ != "ZImageTransformer2DModel" or not before or not after:
        return False
    (pictures, _, texts), (fewer, _, shorter) = before[0][:3], after[0][:3]

    def longest(shapes: Any) -> int:
        return max(-(-int(shape[0]) // 32) for shape in shapes)

    half = len(pictures) // 2
    return len(fewer) * 2 == len(pictures) and fewer == pictures[:half] and longest(texts) == longest(shorter)


@dataclass(eq=False)
class _Transformer:
    """One hooked transformer. `pass_` is the running call: its lane, its step, and the slots that it has run."""

    name: str
    module: nn.Module
    slots: Slots
    owner: Attachment
    hooked: list[nn.Module] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    lanes: dict[tuple[str | None, int], Lane] = field(default_factory=dict)
    lane: Lane | None = None
    step: int = -1
    called: dict[str | None, int] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    first: hooks.LaneHook | None = None

    def put_on(self, wrap: Wrap | None) -> None:
        try:
            for index, path in enumerate(self.slots.paths):
                module = module_at(self.module, path)
                hook = hooks.LaneHook(self, 0, wrap) if index == 0 else hooks.SlotHook(self, index, wrap)
                hooks.put_on(module, hook)
                self.hooked.append(module)
                if isinstance(hook, hooks.LaneHook):
                    self.first = hook
        except BaseException:
            self.take_off()
            raise
        hooks.forget_children(self.module)

    def listen(self) -> None:
        """Watches the transformer itself by PyTorch's own hooks, which `enable_model_cpu_offload` leaves alone."""
        parameters = list(inspect.signature(type(self.module).forward).parameters)[1:]
        at = next((parameters.index(name) for name in ("timestep", "t", "timesteps") if name in parameters), None)
        name = parameters[at] if at is not None else ""

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            timestep = kwargs.get(name) if at is None or at >= len(args) else args[at]
            self.begin(timestep, (shapes_of(args), shapes_of(kwargs)))

        def after(_module: nn.Module, _args: Any, _output: Any) -> None:
            self.lane = None

        self.handles.append(self.module.register_forward_pre_hook(before, with_kwargs=True))
        self.handles.append(self.module.register_forward_hook(after, always_call=True))

    def begin(self, timestep: Any, shapes: Any) -> None:
        # Before the moment: a new run may move the hook, and the pipeline has told the old one.
        context = self.first.context if self.first is not None else None
        moment = self.owner.moment(timestep)
        schedule = self.owner.running
        if self.owner.active is not self:
            # The other transformer has done its part of the run.
            if self.owner.active is not None:
                self.owner.active.drop(moment.step)
            self.owner.active = self
        if moment.step != self.step:
            self.step, self.called = moment.step, {}
            self.drop(moment.step - 1)
        number = self.called.get(context, 0)
        self.called[context] = number + 1
        lane = self.lanes.get((context, number))
        if lane is None:
            lane = self.lanes[context, number] = Lane(schedule, self.owner.counts)
        lane.begin(moment.step, shapes, loses_its_second_half(self.module, lane.shapes, shapes))
        self.owner.counts.passes += 1
        self.seen.clear()
        self.lane = lane

    def slot(self, index: int, run: Callable[[], Any]) -> Any:
        lane, step = self.lane, self.step
        if lane is None:  # Somebody calls a block by itself.
            return run()
        if index in self.seen:
            raise AttachError(
                f"{self.slots.paths[index]} ran twice in one call of the transformer; leave it out of the layout"
            )
        self.seen.add(index)
        decision = lane.decision(step, index)
        if decision == 0:
            output = run()
            lane.store(step, index, output)
        else:
            output = lane.read(step, index, decision)
        lane.release(step, index)
        return output

    def drop(self, step: int) -> None:
        """Drops the lanes that have not run since that step: they could only begin anew."""
        for key in [key for key, lane in self.lanes.items() if lane.last < step]:
            self.lanes.pop(key).clear()

    def forget(self) -> None:
        for lane in self.lanes.values():
            lane.clear()
        self.lanes.clear()
        self.lane, self.step, self.called = None, -1, {}

    def follow_modules(self, wrap: Wrap | None) -> None:
        """Moves the hooks to modules that took the place of others, as adapters (LoRA) do."""
        if all(
            module_at(self.module, path) is module for path, module in zip(self.slots.paths, self.hooked, strict=True)
        ):
            return
        self.check_off()
        self.take_off()
        self.put_on(wrap)

    def check_off(self) -> None:
        # Nothing is hooked where no schedule could be had, and after detaching.
        for module, path in zip(self.hooked, self.slots.paths, strict=False):
            hooks.check_off(module, path)

    def take_off(self) -> None:
        for module in self.hooked:
            hooks.take_off(module)
        self.hooked.clear()
        hooks.forget_children(self.module)

    def stop_listening(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


class Attachment:
    """A schedule that is attached to a pipeline.

    `schedule` is `None` where none could be had and the pipeline runs uncached; see `attach`. `grid` says how the runs
    of the schedule sampled when it was measured; pass `**settings` to the pipeline to run it so. `counts` are those of
    the last run.
    """

    def __init__(
        self,
        pipe: Any,
        transformers: dict[str, tuple[nn.Module, Slots]],
        file: ScheduleFile | None,
        *,
        resample: bool = False,
        wrap: Wrap | None = None,
    ) -> None:
        self._pipe = weakref.ref(pipe)
        self._resample = resample
        self._wrap = wrap
        self._clock = Clock()
        self._scheduler: tuple[Any, Any] | None = None
        self._parts = [_Transformer(name, module, slots, self) for name, (module, slots) in transformers.items()]
        self.counts = Counts()
        self.schedule: Schedule | None = None
        self.grid: Grid | None = None
        self.running: Any = None
        self.active: _Transformer | None = None
        if file is not None:
            self._use(file)

    @property
    def layout(self) -> Layout:
        return self._parts[0].slots.layout

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of a call of the pipeline that runs the schedule as it was measured."""
        if self.schedule is None:
            return {}
        grid = self.grid
        if grid is not None and grid.timesteps:
            return {"num_inference_steps": self.schedule.steps, "timesteps": list(grid.timesteps)}
        if grid is not None and grid.sigmas:
            return {"num_inference_steps": self.schedule.steps, "sigmas": list(grid.sigmas)}
        return {"num_inference_steps": self.schedule.steps}

    def _use(self, file: ScheduleFile) -> None:
        found = self.layout
        if file.schedule.layout != found:
            raise AttachError(f"the schedule is for layout {file.schedule.layout}, but the pipeline has {found}")
        done: list[_Transformer] = []
        try:
            self._set_order(file.grid)
            for part in self._parts:
                part.put_on(self._wrap)
                done.append(part)
                part.listen()
        except BaseException:
            for part in done:
                part.stop_listening()
                part.take_off()
            self._reset_order()
            raise
        self.schedule, self.grid = file.schedule, file.grid

    def _set_order(self, grid: Grid | None) -> None:
        """Gives the pipeline a scheduler of the order that the schedule was measured with."""
        pipe = self.pipe
        if grid is None or grid.solver_order is None:
            return
        mine = pipe.scheduler
        if not hasattr(mine.config, "solver_order"):
            raise AttachError(
                f"the schedule wants solver order {grid.solver_order}, which {type(mine).__name__} has not"
            )
        if mine.config.solver_order != grid.solver_order:
            theirs = type(mine).from_config(mine.config, solver_order=grid.solver_order)
            self._scheduler, pipe.scheduler = (mine, theirs), theirs

    def _reset_order(self) -> None:
        pipe = self._pipe()
        if self._scheduler is not None and pipe is not None and pipe.scheduler is self._scheduler[1]:
            pipe.scheduler = self._scheduler[0]
        self._scheduler = None

    @property
    def pipe(self) -> Any:
        pipe = self._pipe()
        if pipe is None:
            raise AttachError("the pipeline is gone")
        return pipe

    def moment(self, timestep: Any) -> Moment:
        """The moment of a call of a transformer. Prepares for a new run."""
        scheduler = self.pipe.scheduler
        moment = self._clock.read(scheduler, timestep)
        if moment.first:
            try:
                self._begin_run(scheduler, moment.steps)
            except BaseException:
                self._clock.reset()
                raise
        return moment

    def _begin_run(self, scheduler: Any, steps: int) -> None:
        schedule = self.schedule
        if schedule is None:
            raise AttachError("the schedule was detached")
        if steps != schedule.steps:
            if not self._resample:
                raise AttachError(
                    f"the schedule has {schedule.steps} steps and this run {steps}: call the pipeline with "
                    f"num_inference_steps={schedule.steps}, or attach with steps='resample'"
                )
            schedule = schedule.at_steps(steps)
        elif self.grid is not None and self.grid.timesteps:
            found = torch.as_tensor(scheduler.timesteps).detach().cpu().flatten().tolist()
            if found != list(self.grid.timesteps):
                raise AttachError(
                    f"the schedule was measured on {self.grid}, and this run samples on timesteps "
                    f"{','.join(f'{t:g}' for t in found)}: call the pipeline with **attachment.settings"
                )
        for part in self._parts:
            part.forget()
            part.follow_modules(self._wrap)
        self.counts, self.active = Counts(), None
        self.running = schedule

    def reset(self) -> None:
        """Drops what is stored. A run that ended in an exception holds its outputs until this or the next run."""
        self._clock.reset()
        for part in self._parts:
            part.forget()

    def detach(self) -> None:
        """Takes the schedule off; the pipeline is then as it was. Does nothing the second time."""
        for part in self._parts:
            part.check_off()
        for part in self._parts:
            part.stop_listening()
            part.take_off()
            part.forget()
        self._reset_order()
        self.schedule = self.grid = None
