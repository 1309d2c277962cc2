"""Schedules as text: round trips, the golden files of the runs with diffusers, and every kind of bad file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from strategies import layout_and_raw, raw

from evocache import FormatError, Grid, Layout, Schedule, formats
from evocache.schedule import from_rows

GOLDEN = sorted((ROOT / "worker/models/emoji/golden").glob("*.json"))
DIT = Layout.of(("block", 3, ("attn1", "ff")))


@given(layout_and_raw())
def test_our_format_gives_back_what_it_was_given(case: tuple[Layout, int, bytes]) -> None:
    schedule = Schedule(*case)
    assert Schedule.loads(schedule.dumps()) == schedule
    assert Schedule.loads("\ufeff" + schedule.dumps(about={"any": [1]}), case[0]) == schedule


@given(st.data())
@pytest.mark.parametrize("layout", [Layout.pixart(3), Layout.flux(2, 3), DIT], ids=str)
def test_other_formats_give_back_what_they_can_express(layout: Layout, data: st.DataObject) -> None:
    schedule = Schedule(layout, *data.draw(raw(layout, forecast=False)))
    if layout != DIT:
        assert Schedule.loads(schedule.dumps("ecad")) == schedule
    if len(layout.groups) == 1:
        assert Schedule.loads(schedule.dumps("smoothcache"), layout) == schedule
    if layout == DIT:
        assert Schedule.loads(schedule.dumps("invardiff")) == schedule


def test_invardiff_says_flux_where_proj_out_runs() -> None:
    layout = Layout.flux(1, 1)
    schedule = from_rows(layout, ["CRC", "CCR", "CRR", "CRC", "CCR", "CCC"])
    book = json.loads(schedule.dumps("invardiff"))
    assert book["transformer_cache_book"]["context_attn"] == [[False], [True], [False]]
    assert book["single_transformer_cache_book"]["mlp"] == [[False], [False], [True]]
    assert Schedule.loads(json.dumps(book)) == schedule
    with pytest.raises(FormatError, match="proj_out"):
        from_rows(layout, ["CCC"] * 5 + ["CRC"]).dumps("invardiff")
    book["transformer_cache_book"]["context_attn"][1][0] = False
    with pytest.raises(FormatError, match=r"context_attn\[1\]\[0\].*differs"):
        Schedule.loads(json.dumps(book))
    book["transformer_cache_book"]["context_attn"][1][0] = True
    book["step_cache_book"][1] = True
    file = formats.read(json.dumps(book))
    assert "1 steps skip" in file.lost[0]
    assert not any(row[1] == "C" for name, row in file.schedule.rows() if name.endswith("proj_out"))


def test_smoothcache_names_all_blocks_or_one() -> None:
    text = json.dumps({"attn1": [1, 0, 1], "attn1-2": [1, 1, 0]})
    schedule = Schedule.loads(text, DIT)
    assert dict(schedule.rows()) == {
        "block.0.attn1": "CRC",
        "block.0.ff": "CCC",
        "block.1.attn1": "CRC",
        "block.1.ff": "CCC",
        "block.2.attn1": "CCR",
        "block.2.ff": "CCC",
    }
    for wrong, expected in [
        ({"attn1": [1, 0], "ff": [1]}, "equally long"),
        ({"attn3": [1]}, "no such component"),
        ({"attn1-3": [1]}, "no such block"),
        ({"attn1-x": [1]}, "no such block"),
        ({"attn1": [1, 2]}, "0 and 1"),
        ({"attn1": [0, 1]}, "first step"),
        ({"attn1": []}, "1 to 1000 steps"),
    ]:
        with pytest.raises(FormatError, match=expected):
            formats.read(json.dumps(wrong), DIT)
    with pytest.raises(FormatError, match="pass the model's layout"):
        formats.read(text)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_schedules_are_read_and_written_as_they_are(path: Path) -> None:
    schedule = Schedule.load(path)
    assert (schedule.steps, schedule.slots) == (20, 36)
    ours, theirs = json.loads(schedule.dumps("ecad")), json.loads(path.read_text())
    assert ours["cache_schedule"]["schedule"] == theirs["cache_schedule"]["schedule"]


BLOCK = {"attn1": True, "attn2": True, "ff": True}


def ecad(steps: dict[str, Any], **more: Any) -> str:
    schedule = {
        "name": "n",
        "num_blocks": 1,
        "num_inference_steps": 2,
        "attributes": {"gate_step": 1},
        "schedule": steps,
    }
    return json.dumps({"cache_schedule": schedule, **more})


def test_steps_are_numbered_as_ecad_reads_them() -> None:
    padded = Schedule.loads(ecad({"000": {"0": BLOCK}, "001": {"0": BLOCK}}))
    for a, b in [("0", "1"), ("1", "0"), ("00", " 1 ")]:
        assert Schedule.loads(ecad({a: {"0": BLOCK}, b: {"0": BLOCK}})) == padded


def test_what_a_schedule_was_made_with_is_told() -> None:
    steps = {"0": {"0": BLOCK}, "1": {"0": BLOCK}}
    file = formats.read(ecad(steps, height=512, guidance_scale=4.5, width=None, config={"weights": "x"}, metrics={}))
    assert file.made_with == {"config.weights": "x", "guidance_scale": "4.5", "height": "512"}


@pytest.mark.parametrize(
    ("second", "more", "expected"),
    [
        ({"0": BLOCK | {"custom_compute_attn": {"name": "tgate"}}}, {}, "schedule.1.0.custom_compute_attn: 'tgate'"),
        ({"0": BLOCK | {"attn3": True}}, {}, "schedule.1.0.attn3: the block has no such component"),
        ({"0": BLOCK, "1": BLOCK}, {}, "schedule.1.1: the model has no such block"),
        ({"0": {"attn1": True}}, {}, r"schedule.001.0.attn2: must be true or false"),
        ({"0": BLOCK}, {"pipeline": "tgate"}, "pipeline: 'tgate' is a sampling pipeline"),
        ({"0": BLOCK}, {"config": {"pipeline": {"name": "tgate"}}}, "config.pipeline: 'tgate'"),
        ({"0": BLOCK}, {"skip_layers": [1]}, "skip_layers: is not a field"),
    ],
)
def test_what_only_ecads_code_can_run_is_refused(second: dict[str, Any], more: dict[str, Any], expected: str) -> None:
    with pytest.raises(FormatError, match=expected):
        formats.read(ecad({"0": {"0": BLOCK}, "1": second}, **more))


def test_a_bad_file_is_told_by_its_field(tmp_path: Path) -> None:
    good = json.loads(from_rows(Layout.pixart(1), ["CRCR", "CCCC", "CRRR"]).dumps())

    def refused(expected: str, text: str | None = None, **changes: Any) -> None:
        with pytest.raises(FormatError, match=expected):
            formats.read(text if text is not None else json.dumps(good | changes))

    refused("not JSON", "{")
    refused("not JSON", '{"a": NaN}')
    refused("given twice", '{"a": 1, "a": 2}')
    refused("JSON object", "[]")
    refused("not JSON", "[" * 100_000)
    refused("neither an evocache schedule", "{}")
    refused("evocache_schedule: .* version 1", evocache_schedule=2)
    refused("evocache_schedule", evocache_schedule=True)
    refused("steps", steps=-1)
    refused("steps", steps=True)
    refused("decisions.block.0.attn1: has 4 letters for 5 steps", steps=5)
    refused("guidance: is not a field", guidance=1)
    refused("layout", layout=[{"group": "block", "count": 0, "components": ["ff"]}])
    refused("layout", layout={})
    refused("id: is .*delete the field", id="0" * 64)
    refused("decisions.block.0.ff: is missing", decisions={"block.0.attn1": "CRCR", "block.0.attn2": "CCCC"})
    refused("'x' is not one of", decisions=good["decisions"] | {"block.0.ff": "CxCC"})
    refused("step 0 must compute", decisions=good["decisions"] | {"block.0.ff": "RRRR"})
    refused("decisions.y: is not a slot", decisions=good["decisions"] | {"y": "CCCC"})
    with pytest.raises(FormatError, match="but the model has"):
        formats.read(json.dumps(good), Layout.pixart(2))
    with pytest.raises(FormatError, match="cannot read schedule"):
        formats.read_file(tmp_path / "gone.json")
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(FormatError, match=r"bad\.json.*neither"):
        formats.read_file(bad)


def test_a_grid_is_kept_beside_the_schedule(tmp_path: Path) -> None:
    schedule = from_rows(Layout.pixart(1), ["CRC", "CCC", "CRR"])
    grid = Grid(3, solver_order=1, timesteps=(900, 500, 50))
    formats.ScheduleFile(schedule, {"guidance_scale": "3"}, grid).save(tmp_path / "best.json")
    read = formats.read_file(tmp_path / "best.json")
    assert (read.grid, read.made_with, read.schedule) == (grid, {"guidance_scale": "3"}, schedule)
    assert str(grid) == "solver order 1, timesteps 900,500,50"
    for wrong in [
        {"steps": 3},
        {"steps": 3, "timesteps": [900, 50]},
        {"steps": 3, "timesteps": [50, 500, 900]},
        {"steps": 3, "timesteps": "900,500,50"},
        {"steps": 3, "timesteps": [900, "x", 50]},
        {"steps": 3, "solver_order": 4},
        {"steps": 3, "solver_order": "1"},
        {"steps": 3, "sigmas": [1.0, 0.5, 0.0]},
        {"steps": 3, "sigmas": [1.0, 0.5, 0.1], "solver_order": 1},
    ]:
        with pytest.raises(FormatError):
            formats.read(schedule.dumps(about={"made_for": {"sampling": {"grids": [wrong]}}}))


def test_what_a_format_cannot_express_is_refused() -> None:
    forecast = from_rows(Layout.pixart(1), ["CCF", "CCC", "CCC"])
    other = Schedule.all_compute(Layout.of(("layer", 2, ("mlp",))), 2)
    for format in ("ecad", "smoothcache", "invardiff"):
        with pytest.raises(FormatError, match="1 forecasts"):
            forecast.dumps(format)
    with pytest.raises(FormatError, match=r"layer\*2\[mlp\]"):
        other.dumps("ecad")
    with pytest.raises(FormatError, match=r"layer\*2\[mlp\]"):
        other.dumps("invardiff")
    with pytest.raises(FormatError, match="one kind of block"):
        Schedule.all_compute(Layout.flux(1, 1), 2).dumps("smoothcache")
    with pytest.raises(FormatError, match="is not one of the formats"):
        other.dumps("yaml")


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    Schedule.all_compute(Layout.flux(19, 38), 1000).save(tmp_path / "large.json")
    command = f"set -o pipefail; {sys.executable} -u -m evocache show {tmp_path / 'large.json'} | head -n 1"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("id ")
    assert not told.stderr
