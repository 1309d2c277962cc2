"""A row of decisions for another step count, by relative time, as the coordinator does it for imported schedules.

Copying step `round(t · from / to)` would drop some computed steps and double others. Instead each slot keeps its number
of computed steps up to each relative time: with computed steps `s_0 < s_1 < …`, `G` is the line through `(s_j, j)`,
closed by `(from, number computed)`, and target step `t` computes when `floor(G(t · from / to) · to / from)` grows. So
all-compute stays all-compute, "every n-th" stays "every n-th", and equal rows stay equal. A step that is not computed
forecasts if any source step that it covers does.
"""

from __future__ import annotations

from collections.abc import Sequence

_COMPUTE, _REUSE, _FORECAST = range(3)


def resample(row: Sequence[int], to: int) -> list[int]:
    """The decisions of one slot at `to` steps."""
    source = len(row)
    if source == to:
        return list(row)
    computed = [step for step, decision in enumerate(row) if step == 0 or decision == _COMPUTE]
    count = len(computed)
    computed.append(source)
    target = [_COMPUTE] * to
    j, before = 0, -1
    for t in range(to):
        while j + 1 < count and computed[j + 1] * to <= t * source:
            j += 1
        gap = computed[j + 1] - computed[j]
        # floor(G(t · from / to) · to / from), in integers.
        done = (j * to * gap + t * source - computed[j] * to) // (gap * source)
        if done == before:
            covered = row[t * source // to : -(-(t + 1) * source // to)]
            target[t] = _FORECAST if _FORECAST in covered else _REUSE
        before = done
    return target
