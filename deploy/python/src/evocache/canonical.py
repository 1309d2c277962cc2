"""Which outputs a schedule reads: how long each computed output is kept, and the canonical form that follows from it.

Works on decisions as bytes, step-major. Knows nothing of `Schedule`.
"""

from __future__ import annotations

from .layout import Layout

_COMPUTE, _REUSE, _FORECAST = range(3)


def retention(layout: Layout, steps: int, decisions: bytes) -> list[int | None]:
    """For each (step, slot), step-major: the last later step that reads the output computed there, or `None` if it is
    not computed or never read again. A reuse reads the output computed last, a forecast the last two."""
    slots = len(layout)
    last_read: list[int | None] = [None] * (steps * slots)
    for slot, consumer in enumerate(layout.consumers):
        newest, older = 0, None
        for step in range(1, steps):
            decision = decisions[step * slots + slot]
            if decision == _COMPUTE:
                older, newest = newest, step
            elif consumer is not None and decisions[step * slots + consumer] != _COMPUTE:
                continue
            else:
                last_read[newest * slots + slot] = step
                if decision == _FORECAST and older is not None:
                    last_read[older * slots + slot] = step
    return last_read


def canonical(layout: Layout, steps: int, decisions: bytes) -> bytes:
    """Normalizes decisions that cannot change the result: a forecast with one stored output becomes a reuse; where the
    output is not used, a forecast becomes a reuse, and so does a compute that is never read later. One pass is enough:
    a removed compute was never read, so the sources of other decisions do not change."""
    if _FORECAST not in decisions and not any(consumer is not None for consumer in layout.consumers):
        return decisions
    slots = len(layout)
    last_read = retention(layout, steps, decisions)
    out = bytearray(decisions)
    for slot, consumer in enumerate(layout.consumers):
        stored = 1
        for step in range(1, steps):
            at = step * slots + slot
            # A consumer comes after what it reads, and its own decisions between compute and not never change.
            unused = consumer is not None and out[step * slots + consumer] != _COMPUTE
            if out[at] == _COMPUTE:
                if unused and last_read[at] is None:
                    out[at] = _REUSE
                else:
                    stored += 1
            elif out[at] == _FORECAST and (unused or stored < 2):
                out[at] = _REUSE
    return bytes(out)
