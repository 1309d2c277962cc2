"""What one guidance pass of one transformer has stored: the raw outputs that a later step reads, and no others.

A pipeline that guides in two calls a step has two lanes, with the same schedule and outputs of their own. Knows no
modules and no diffusers; outputs are tensors, or tuples of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AttachError
from ..schedule import Decision, Schedule


@dataclass
class Counts:
    """What a run did. `restarts`: passes that computed everything though the schedule did not say so, because nothing
    was stored that they could use. `peak_bytes`: the most that all lanes held at once."""

    passes: int = 0
    computed: int = 0
    reused: int = 0
    forecast: int = 0
    restarts: int = 0
    held_bytes: int = 0
    peak_bytes: int = 0

    def hold(self, size: int) -> None:
        self.held_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)


@dataclass
class Stored:
    step: int
    until: int
    output: Any
    size: int


def tree(act: Any, *outputs: Any) -> Any:
    """Applies `act` to the tensors of outputs of one structure; what is no tensor stays as it is in the last output."""
    last = outputs[-1]
    if isinstance(last, torch.Tensor):
        return act(*outputs)
    if isinstance(last, (tuple, list)):
        return type(last)(tree(act, *parts) for parts in zip(*outputs, strict=True))
    return last


def size_of(output: Any) -> int:
    if isinstance(output, torch.Tensor):
        return output.element_size() * output.nelement()
    return sum(map(size_of, output)) if isinstance(output, (tuple, list)) else 0


class Lane:
    """The stored outputs of a lane, and the schedule that it follows since it began."""

    def __init__(self, schedule: Schedule, counts: Counts) -> None:
        self._whole = schedule
        self._counts = counts
        self._slots = schedule.slots
        self._stored: list[list[Stored]] = [[] for _ in range(schedule.slots)]
        self._shapes: Any = None
        self._last = -1
        # What an output that only a cached component would read looks like, without its content.
        self._hollow: list[Any] = [None] * schedule.slots
        self._follow(0)

    def _follow(self, first: int) -> None:
        self._first = first
        self._schedule = self._whole if first == 0 else self._whole.from_step(first)
        self._until = self._schedule.retention()

    def begin(self, step: int, shapes: Any, halves: bool) -> None:
        """Starts a pass. A lane that was not there at the step before, or whose inputs have other sizes, begins anew:
        it computes everything at this step and follows the schedule from there. With `halves` the batch has lost its
        second half, and so does what is stored."""
        if step == 0 and self._last < 0:
            pass
        elif step != self._last + 1 or not (shapes == self._shapes or halves):
            self._counts.restarts += 1
            self.clear()
            self._follow(step)
        elif halves:
            self._halve()
        self._last, self._shapes = step, shapes

    @property
    def last(self) -> int:
        """The step of the last pass, -1 before the first."""
        return self._last

    @property
    def shapes(self) -> Any:
        """The sizes of the inputs of the last pass."""
        return self._shapes

    def decision(self, step: int, slot: int) -> Decision | None:
        """What to do. `None`: nothing reads the output at this step."""
        number = step - self._first
        decision = Decision(self._schedule.decisions[number * self._slots + slot])
        return decision if decision == Decision.COMPUTE or self._schedule.consumed(number, slot) else None

    def store(self, step: int, slot: int, output: Any) -> None:
        """Keeps a computed output if a later step reads it."""
        self._counts.computed += 1
        if self._schedule.layout.consumers[slot] is not None and self._hollow[slot] is None:
            self._hollow[slot] = tree(lambda t: t.new_empty((*t.shape[:-1], 0)), output)
        until = self._until[(step - self._first) * self._slots + slot]
        if until is not None:
            size = size_of(output)
            self._stored[slot].append(Stored(step, self._first + until, output, size))
            self._counts.hold(size)

    def read(self, step: int, slot: int, decision: Decision | None) -> Any:
        """The output for a slot that does not run."""
        if decision is None:
            return self._hollow[slot]
        if len(self._stored[slot]) < (2 if decision == Decision.FORECAST else 1):
            name = self._schedule.layout.slot_name(slot)
            raise AttachError(f"{name} is to be reused at step {step}, but the model did not run it when it was due")
        newest = self._stored[slot][-1]
        if decision == Decision.REUSE:
            self._counts.reused += 1
            return newest.output
        self._counts.forecast += 1
        older = self._stored[slot][-2]
        factor = (step - newest.step) / (newest.step - older.step)
        return tree(lambda y0, y1: y1 + (y1 - y0) * factor, older.output, newest.output)

    def release(self, step: int, slot: int) -> None:
        """Drops the outputs of a slot that no later step reads."""
        stored = self._stored[slot]
        if any(entry.until <= step for entry in stored):
            self._counts.held_bytes -= sum(entry.size for entry in stored if entry.until <= step)
            self._stored[slot] = [entry for entry in stored if entry.until > step]

    def clear(self) -> None:
        """Drops everything."""
        self._counts.held_bytes -= sum(entry.size for stored in self._stored for entry in stored)
        self._stored = [[] for _ in range(self._slots)]
        self._hollow = [None] * self._slots

    def _halve(self) -> None:
        for stored in self._stored:
            for entry in stored:
                # A copy: a view would keep the whole batch.
                entry.output = tree(lambda t: t[: t.shape[0] // 2].clone(), entry.output)
                size = size_of(entry.output)
                self._counts.held_bytes -= entry.size - size
                entry.size = size
