"""InvarDiff's books (arXiv 2512.05134): `true` = reuse, per step and block.

FLUX: `{step_cache_book: [steps], transformer_cache_book: {attn, context_attn, ff, context_ff: [steps][doubles]}`,
`single_transformer_cache_book: {attn, mlp: [steps][singles]}}`.
DiT: `{step_cache_book, msa_cache_book, mlp_cache_book}`.

A true entry of `step_cache_book` skips the whole transformer. A schedule has no such decision: it becomes a step that
reuses every slot, which still runs norms and gates (`ScheduleFile.lost` says so). FLUX's `mlp` is stored after its
activation, which gives the same values as storing `proj_mlp` before it; `proj_out` always runs. Image and text output
of joint attention are stored together in a schedule, so `attn` and `context_attn` must agree.
"""

from __future__ import annotations

from typing import Any

from ..errors import FormatError, LayoutError, ScheduleError
from ..layout import Layout
from ..schedule import Decision, Schedule
from .common import ScheduleFile, books, field_error, mapping

_FLUX = {"step_cache_book", "transformer_cache_book", "single_transformer_cache_book"}
_DIT = {"step_cache_book", "msa_cache_book", "mlp_cache_book"}


def _dit_layout(blocks: int) -> Layout:
    return Layout.of(("block", blocks, ("attn1", "ff")))


def write(schedule: Schedule) -> dict[str, Any]:
    layout = schedule.layout
    if schedule.forecasts:
        forecasts = schedule.decisions.count(Decision.FORECAST)
        raise FormatError(f"InvarDiff's format has compute and reuse only; the schedule has {forecasts} forecasts")
    counts = [group.count for group in layout.groups]
    never = [False] * schedule.steps
    if len(counts) == 1 and layout == _dit_layout(counts[0]):
        msa, mlp = (_book(schedule, 0, counts[0], 2, c) for c in range(2))
        return {"step_cache_book": never, "msa_cache_book": msa, "mlp_cache_book": mlp}
    if len(counts) == 2 and layout == Layout.flux(*counts):
        doubles, singles = counts
        attn, ff, context = (_book(schedule, 0, doubles, 3, c) for c in range(3))
        single_attn, mlp, out = (_book(schedule, 3 * doubles, singles, 3, c) for c in range(3))
        reused = sum(map(sum, out))
        if reused:
            raise FormatError(f"InvarDiff always runs proj_out; the schedule reuses it {reused} times")
        return {
            "step_cache_book": never,
            "transformer_cache_book": {"attn": attn, "context_attn": attn, "ff": ff, "context_ff": context},
            "single_transformer_cache_book": {"attn": single_attn, "mlp": mlp},
        }
    raise FormatError(f"InvarDiff's format has DiT and FLUX models only, not {layout}")


def _book(schedule: Schedule, first: int, blocks: int, width: int, component: int) -> list[list[bool]]:
    slots = [first + block * width + component for block in range(blocks)]
    return [
        [schedule.decisions[step * schedule.slots + slot] != Decision.COMPUTE for slot in slots]
        for step in range(schedule.steps)
    ]


def read(data: dict[str, Any]) -> ScheduleFile:
    flux = "transformer_cache_book" in data
    other = next((name for name in data if name not in (_FLUX if flux else _DIT)), None)
    if other is not None:
        raise field_error(other, "is not a field of this format")
    skipped = data["step_cache_book"]
    if not isinstance(skipped, list) or not skipped or any(cell not in (0, 1) for cell in skipped):
        raise field_error("step_cache_book", "must be a list of booleans, one per step")
    layout, tables = _flux(data, len(skipped)) if flux else _dit(data, len(skipped))
    if skipped[0] or any(any(table[0]) for table in tables):
        raise FormatError("step 0 must compute everything")
    rows = _by_slot(layout, tables)
    try:
        schedule = Schedule.from_fn(
            layout,
            len(skipped),
            lambda step, slot: Decision.REUSE if skipped[step] or rows[slot][step] else Decision.COMPUTE,
        )
    except ScheduleError as error:
        raise field_error("step_cache_book", error) from error
    count = sum(map(bool, skipped))
    note = f"{count} steps skip the whole transformer; here they reuse every slot and still run norms and gates"
    return ScheduleFile(schedule, {}, lost=(note,) if count else ())


def _by_slot(layout: Layout, tables: list[list[list[bool]]]) -> list[list[bool]]:
    """A row over the steps for every slot."""
    rows = []
    for slot in layout.slots:
        table = tables[3 * slot.group + slot.component]
        rows.append([step[slot.block] for step in table])
    return rows


def _columns(value: object, field: str) -> int:
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        raise field_error(field, "must be a list of steps, each a list of blocks")
    return len(value[0])


def _dit(data: dict[str, Any], steps: int) -> tuple[Layout, list[list[list[bool]]]]:
    blocks = _columns(data.get("msa_cache_book"), "msa_cache_book")
    tables = [books(data.get(name), name, steps, blocks) for name in ("msa_cache_book", "mlp_cache_book")]
    try:
        return _dit_layout(blocks), tables
    except LayoutError as error:
        raise field_error("msa_cache_book", error) from error


def _flux(data: dict[str, Any], steps: int) -> tuple[Layout, list[list[list[bool]]]]:
    double = mapping(data.get("transformer_cache_book"), "transformer_cache_book")
    single = mapping(data.get("single_transformer_cache_book"), "single_transformer_cache_book")
    doubles = _columns(double.get("attn"), "transformer_cache_book.attn")
    singles = _columns(single.get("attn"), "single_transformer_cache_book.attn")
    names = ("attn", "context_attn", "ff", "context_ff")
    attn, context, ff, context_ff = (
        books(double.get(name), f"transformer_cache_book.{name}", steps, doubles) for name in names
    )
    single_attn, mlp = (
        books(single.get(name), f"single_transformer_cache_book.{name}", steps, singles) for name in ("attn", "mlp")
    )
    for step, (image, text) in enumerate(zip(attn, context, strict=True)):
        block = next((b for b in range(doubles) if image[b] != text[b]), None)
        if block is not None:
            raise field_error(
                f"transformer_cache_book.context_attn[{step}][{block}]",
                "differs from attn; a schedule stores both outputs of joint attention together",
            )
    out = [[False] * singles for _ in range(steps)]
    try:
        return Layout.flux(doubles, singles), [attn, ff, context_ff, single_attn, mlp, out]
    except LayoutError as error:
        raise field_error("transformer_cache_book.attn", error) from error
