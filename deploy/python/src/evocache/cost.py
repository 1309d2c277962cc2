"""The exact cost of a schedule in multiply-accumulates and cache memory, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ScheduleError

if TYPE_CHECKING:
    from .schedule import Schedule


@dataclass(frozen=True)
class CostModel:
    """The costs of one model under one sampling setup, per image. Classifier-free guidance with two passes doubles
    them. `slot_macs` and `slot_cache_bytes` have a value per slot."""

    slot_macs: Sequence[int]
    slot_cache_bytes: Sequence[int]
    step_macs: int = 0
    image_macs: int = 0

    def _check(self, slots: int) -> None:
        for name in ("slot_macs", "slot_cache_bytes"):
            found = len(getattr(self, name))
            if found != slots:
                raise ScheduleError(f"cost model has {found} values in '{name}', the layout has {slots} slots")

    def macs(self, schedule: Schedule) -> int:
        """Multiply-accumulates per image."""
        slots = schedule.slots
        self._check(slots)
        computed = (schedule.decisions[slot::slots].count(0) for slot in range(slots))
        return sum(n * m for n, m in zip(computed, self.slot_macs, strict=True)) + (
            self.step_macs * schedule.steps + self.image_macs
        )

    def peak_cache_bytes(self, schedule: Schedule) -> int:
        """The peak size of stored outputs, in bytes per image. An output is dropped right after its last read, and one
        that is never read again is not stored."""
        slots = schedule.slots
        self._check(slots)
        last_read = schedule.retention()
        # An output is held from (its step, slot) to (the step of its last read, slot), both included.
        released = [0] * len(last_read)
        held = peak = 0
        for i, last in enumerate(last_read):
            slot = i % slots
            if last is not None:
                held += self.slot_cache_bytes[slot]
                released[last * slots + slot] += self.slot_cache_bytes[slot]
            peak = max(peak, held)
            held -= released[i]
        return peak
