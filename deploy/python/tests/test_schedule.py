"""Schedules by themselves: layouts, canonical form, retention, cost, other step counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import layout_and_raw

from evocache import BlockGroup, Component, CostModel, Decision, Layout, LayoutError, Schedule, ScheduleError
from evocache.schedule import from_rows


def rows(schedule: Schedule) -> list[str]:
    return [row for _, row in schedule.rows()]


def test_slots_run_through_groups_blocks_and_components() -> None:
    layout = Layout.flux(2, 1)
    names = [layout.slot_name(i) for i in range(len(layout))]
    assert (names[0], names[4], names[8]) == ("double.0.attn", "double.1.ff", "single.0.proj_out")
    assert layout.consumers[6:] == (8, 8, None)
    assert str(layout) == "double*2[attn,ff,ff_context];single*1[attn>proj_out,proj_mlp>proj_out,proj_out]"
    assert Layout.parse(str(layout)) == layout


@pytest.mark.parametrize(
    "groups",
    [
        (),
        (BlockGroup("block", 0, (Component("ff"),)),),
        (BlockGroup("block", 1, ()),),
        (BlockGroup("Block", 1, (Component("ff"),)),),
        (BlockGroup("a" * 33, 1, (Component("ff"),)),),
        (BlockGroup("a", 1, (Component("ff"), Component("ff"))),),
        (BlockGroup("a", 1, (Component("ff"),)), BlockGroup("a", 1, (Component("ff"),))),
        (BlockGroup("a", 1, (Component("out"), Component("mlp", "out"))),),
        (BlockGroup("a", 1, (Component("x", "y"), Component("y", "z"), Component("z"))),),
        (BlockGroup("a", 2**40, (Component("x"), Component("y"))),),
        (BlockGroup("a", 1, tuple(Component(f"c{i}") for i in range(65))),),
    ],
)
def test_a_layout_that_cannot_run_is_refused(groups: tuple[BlockGroup, ...]) -> None:
    with pytest.raises(LayoutError):
        Layout(groups)


@pytest.mark.parametrize("text", ["", "block", "block*x[a]", "block*1[]", "block*1[a];", "block*1[a>b]"])
def test_a_text_that_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(LayoutError):
        Layout.parse(text)


def test_what_feeds_a_cached_projection_is_normalized_unless_it_is_read_later() -> None:
    schedule = from_rows(Layout.flux(1, 1), ["CCCC", "CCCC", "CCCC", "CCRC", "CFFC", "CRCR"])
    assert rows(schedule) == ["CCCC", "CCCC", "CCCC", "CCRR", "CRRR", "CRCR"]


def test_retention_names_the_last_reader() -> None:
    last = from_rows(Layout.pixart(1), ["CRRCFR", "CCCCCC", "CRCRRR"]).retention()
    assert last[0::3] == [4, None, None, 5, None, None]
    assert last[1::3] == [None] * 6
    assert last[2::3] == [1, None, 5, None, None, None]


def test_costs_are_counted_without_a_run() -> None:
    cost = CostModel([100, 10, 1], [4, 2, 1], 1000, 5000)
    layout = Layout.pixart(1)
    assert from_rows(layout, ["CRC", "CCC", "CRR"]).macs(cost) == 200 + 30 + 1 + 3000 + 5000
    for three, peak in [
        (["CCC", "CCC", "CCC"], 0),
        (["CRC", "CCC", "CCC"], 4),
        (["CRC", "CCR", "CRR"], 5),
        (["CRC", "CCR", "CCC"], 4),
        (["CCF", "CCC", "CCC"], 8),
    ]:
        assert from_rows(layout, three).peak_cache_bytes(cost) == peak, three
    with pytest.raises(ScheduleError, match="slot_macs"):
        from_rows(layout, ["C"] * 3).macs(CostModel([1], [1, 1, 1]))


@pytest.mark.parametrize(
    ("row", "steps", "moved"),
    [
        ("CCCCCCCCCC", 20, "C" * 20),
        ("CRCRCRCRCR", 20, "CR" * 10),
        ("CR" * 10, 10, "CRCRCRCRCR"),
        ("CRRRRRRRRR", 20, "CRRRRRRRRRCRRRRRRRRR"),
        ("CCFFCRCRRC", 5, "CFCRR"),
    ],
)
def test_another_step_count_keeps_the_pattern(row: str, steps: int, moved: str) -> None:
    from evocache.resample import resample

    assert "".join("CRF"[d] for d in resample(["CRF".index(letter) for letter in row], steps)) == moved


@given(layout_and_raw())
def test_packing_and_canonical_form_are_stable(case: tuple[Layout, int, bytes]) -> None:
    layout, steps, decisions = case
    schedule = Schedule(layout, steps, decisions)
    again = Schedule.from_packed(layout, steps, schedule.packed)
    assert again == schedule
    assert again.id == schedule.id
    assert schedule.computed <= decisions.count(0)
    assert Layout.parse(str(layout)) == layout


@given(layout_and_raw(), st.integers(0, 11))
def test_a_run_that_begins_later_computes_its_first_step(case: tuple[Layout, int, bytes], start: int) -> None:
    layout, steps, decisions = case
    start %= steps
    whole = Schedule(layout, steps, decisions)
    rest = whole.from_step(start)
    assert rest.steps == steps - start
    for step in range(1, rest.steps):
        for slot in range(len(layout)):
            before, after = whole.decision(start + step, slot), rest.decision(step, slot)
            assert before == after or (before, after) in (
                (Decision.FORECAST, Decision.REUSE),
                (Decision.COMPUTE, Decision.REUSE),
            )


def test_what_is_no_schedule_is_refused() -> None:
    layout = Layout.pixart(1)
    for steps, decisions, expected in [
        (0, b"", "1 to 1000 steps"),
        (1001, bytes(3003), "1 to 1000 steps"),
        (2, bytes(5), "take 6 decisions, found 5"),
        (2, b"\0\0\0\3\0\0", "decision 3 is 3"),
        (2, b"\0\1\0\0\0\0", "block.0.attn2 is not computed"),
    ]:
        with pytest.raises(ScheduleError, match=expected):
            Schedule(layout, steps, decisions)
    for packed in [b"", b"\0\0\0", b"\xff\0", b"\0\x30"]:
        with pytest.raises(ScheduleError):
            Schedule.from_packed(layout, 2, packed)
    with pytest.raises(ScheduleError, match="exceed"):
        Schedule.all_compute(Layout.of(("block", 1000, ["a", "b"])), 1000)
