"""The caching schedule: for every step and slot, compute, reuse or forecast.

The same values, canonical form and id as the Rust side's `Schedule`. Knows nothing of files and of torch; the formats
are in `evocache.formats`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from .canonical import canonical, retention
from .errors import ScheduleError
from .layout import Layout
from .resample import resample

if TYPE_CHECKING:
    from .cost import CostModel

MAX_STEPS = 1000
MAX_DECISIONS = 1 << 18


class Decision(IntEnum):
    """What to do with one slot at one step: run the module, take its last stored output, or extrapolate the last two
    computed outputs linearly over the step index, `y1 + (y1 - y0) * (t - t1) / (t1 - t0)`."""

    COMPUTE = 0
    REUSE = 1
    FORECAST = 2

    @property
    def letter(self) -> str:
        return LETTERS[self]


LETTERS = "CRF"


@dataclass(frozen=True)
class Schedule:
    """A schedule in canonical form: step 0 computes, and decisions that cannot change the result are normalized, so
    that schedules that do the same are equal and have the same id.

    `decisions` has a byte per decision, of (step, slot) at `step * slots + slot`.
    """

    layout: Layout
    steps: int
    decisions: bytes = field(repr=False)

    def __post_init__(self) -> None:
        slots = _check_shape(self.layout, self.steps)
        if len(self.decisions) != self.steps * slots:
            raise ScheduleError(
                f"{self.steps} steps of {slots} slots take {self.steps * slots} decisions, found {len(self.decisions)}"
            )
        if self.decisions and max(self.decisions) > Decision.FORECAST:
            at = next(i for i, d in enumerate(self.decisions) if d > Decision.FORECAST)
            raise ScheduleError(f"decision {at} is {self.decisions[at]}; it must be 0, 1 or 2")
        first = next((slot for slot in range(slots) if self.decisions[slot]), None)
        if first is not None:
            raise ScheduleError(f"step 0 must compute every slot; {self.layout.slot_name(first)} is not computed")
        object.__setattr__(self, "decisions", canonical(self.layout, self.steps, self.decisions))

    @staticmethod
    def all_compute(layout: Layout, steps: int) -> Schedule:
        """The uncached run."""
        return Schedule(layout, steps, bytes(_check_shape(layout, steps) * steps))

    @staticmethod
    def from_fn(layout: Layout, steps: int, decide: Callable[[int, int], Decision | int]) -> Schedule:
        """A decision per (step, slot). Step 0 computes, whatever `decide` says of it."""
        slots = _check_shape(layout, steps)
        rest = (int(decide(step, slot)) for step in range(1, steps) for slot in range(slots))
        return Schedule(layout, steps, bytes(slots) + bytes(rest))

    @staticmethod
    def from_packed(layout: Layout, steps: int, packed: bytes) -> Schedule:
        """Two bits per decision, as messages have them: decision `i` in bits `2 * (i % 4)` of byte `i / 4`."""
        slots = _check_shape(layout, steps)
        count = steps * slots
        if len(packed) != -(-count // 4):
            raise ScheduleError(
                f"{steps} steps of {slots} slots take {-(-count // 4)} packed bytes, found {len(packed)}"
            )
        unpacked = bytes(byte >> shift & 3 for byte in packed for shift in (0, 2, 4, 6))
        wrong = next((i for i, d in enumerate(unpacked) if d > 2 or (i >= count and d)), None)
        if wrong is not None:
            raise ScheduleError(f"packed byte {wrong // 4} has bits that are not a decision")
        return Schedule(layout, steps, unpacked[:count])

    @property
    def slots(self) -> int:
        return len(self.layout)

    @property
    def packed(self) -> bytes:
        """The decisions as messages have them; see `from_packed`."""
        padded = self.decisions + bytes(-len(self.decisions) % 4)
        return bytes(
            padded[i] | padded[i + 1] << 2 | padded[i + 2] << 4 | padded[i + 3] << 6 for i in range(0, len(padded), 4)
        )

    @cached_property
    def id(self) -> str:
        """The SHA-256 of a version tag, the layout, the step count and the packed decisions."""
        digest = hashlib.sha256(b"evocache.schedule.v1\0")
        digest.update(str(self.layout).encode() + b"\0")
        digest.update(self.steps.to_bytes(4, "little"))
        digest.update(self.packed)
        return digest.hexdigest()

    def decision(self, step: int, slot: int) -> Decision:
        if not (0 <= step < self.steps and 0 <= slot < self.slots):
            raise IndexError(f"step {step}, slot {slot} is outside of {self.steps} steps of {self.slots} slots")
        return Decision(self.decisions[step * self.slots + slot])

    def row(self, slot: int) -> str:
        """The letters of a slot over the steps, such as `CRRC`."""
        return "".join(LETTERS[d] for d in self.decisions[slot :: self.slots])

    def rows(self) -> Iterator[tuple[str, str]]:
        """The name and the letters of every slot."""
        return ((self.layout.slot_name(slot), self.row(slot)) for slot in range(self.slots))

    @property
    def computed(self) -> int:
        """The number of computed (step, slot)."""
        return self.decisions.count(Decision.COMPUTE)

    @property
    def cache_hit_rate(self) -> float:
        """The share of decisions that the cache serves, in [0, 1)."""
        return (len(self.decisions) - self.computed) / len(self.decisions)

    @property
    def forecasts(self) -> bool:
        """Whether any decision is a forecast."""
        return Decision.FORECAST in self.decisions

    def consumed(self, step: int, slot: int) -> bool:
        """Whether the slot's output is used at this step: always, unless only a cached component would read it."""
        consumer = self.layout.consumers[slot]
        return consumer is None or self.decisions[step * self.slots + consumer] == Decision.COMPUTE

    def retention(self) -> list[int | None]:
        """For each (step, slot): the last later step that reads what is computed there, `None` if there is none."""
        return retention(self.layout, self.steps, self.decisions)

    def from_step(self, step: int) -> Schedule:
        """The schedule of a run that begins at this step: that of the steps from it on, the first of which computes."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside of {self.steps} steps")
        rest = self.decisions[(step + 1) * self.slots :]
        return Schedule(self.layout, self.steps - step, bytes(self.slots) + rest)

    def at_steps(self, steps: int) -> Schedule:
        """The schedule for another step count, by relative time; see `evocache.resample`."""
        slots = _check_shape(self.layout, steps)
        rows = [resample(self.decisions[slot::slots], steps) for slot in range(slots)]
        return Schedule.from_fn(self.layout, steps, lambda step, slot: rows[slot][step])

    def macs(self, cost: CostModel) -> int:
        """Multiply-accumulates per image."""
        return cost.macs(self)

    def peak_cache_bytes(self, cost: CostModel) -> int:
        """The peak size of stored outputs, in bytes per image."""
        return cost.peak_cache_bytes(self)

    @staticmethod
    def loads(text: str, layout: Layout | None = None) -> Schedule:
        """Reads a schedule in any known format; see `evocache.formats.read`."""
        from . import formats

        return formats.read(text, layout).schedule

    @staticmethod
    def load(path: str | PathLike[str], layout: Layout | None = None) -> Schedule:
        """Reads a file in any known format; `layout` is needed by formats that do not say it."""
        from . import formats

        return formats.read_file(path, layout).schedule

    def dumps(self, format: str = "own", *, name: str = "schedule", about: dict[str, Any] | None = None) -> str:
        """Writes the schedule; see `evocache.formats.write`."""
        from . import formats

        return formats.write(self, format, name=name, about=about)

    def save(self, path: str | PathLike[str], format: str = "own", *, name: str = "schedule") -> None:
        """Writes the schedule to a file."""
        from pathlib import Path

        Path(path).write_text(self.dumps(format, name=name), encoding="utf-8")

    def __str__(self) -> str:
        share = 100 * self.cache_hit_rate
        return f"{self.steps} × {self.slots} schedule {self.id[:12]}, {share:.1f} % cached"


def from_rows(layout: Layout, rows: Sequence[str]) -> Schedule:
    """A schedule from a string of letters per slot, such as `["CRRC", …]`."""
    steps = len(rows[0]) if rows else 0
    if len(rows) != len(layout) or any(len(row) != steps for row in rows):
        raise ScheduleError(f"{len(layout)} rows of equal length are needed, found lengths {[len(r) for r in rows]}")
    columns = ("".join(row[step] for row in rows) for step in range(steps))
    text = "".join(columns)
    if not set(text) <= set(LETTERS):
        raise ScheduleError(f"letters must be C, R or F, found {sorted(set(text) - set(LETTERS))}")
    return Schedule(layout, steps, bytes(LETTERS.index(letter) for letter in text))


def _check_shape(layout: Layout, steps: int) -> int:
    if not 1 <= steps <= MAX_STEPS:
        raise ScheduleError(f"a schedule has 1 to {MAX_STEPS} steps, found {steps}")
    slots = len(layout)
    if steps * slots > MAX_DECISIONS:
        raise ScheduleError(f"{steps} steps of {slots} slots exceed {MAX_DECISIONS} decisions")
    return slots
