"""What the worker measures, part by part: profiles, metrics, thumbnails, costs."""

from __future__ import annotations

import io
import math

import pytest
import torch
from PIL import Image
from tiny import fixture

from evocache import EvocacheError, Layout
from evocache.worker import costs, profile
from evocache.worker.evaluation import _png
from evocache.worker.metrics import PSNR, PSNR_CAP, Metric, own
from evocache.worker.pipeline import Item, Pipeline, Setup


def recorded(*runs: list[list[float]]) -> list[float]:
    recorder = profile.Recorder(len(runs[0]), 1)
    for run in runs:
        recorder.begin()
        for values in run:
            recorder.record(0, torch.tensor(values))
    return recorder.changes()


def test_changes_are_relative_to_the_newer_output_and_a_mean_over_runs() -> None:
    one, other = [[1.0, -1.0], [2.0, -2.0], [2.0, 2.0]], [[1.0, 1.0]] * 3
    assert recorded(one) == [0.0, 0.5, 1.0, 0.0, 0.0, 1.0]
    assert recorded(one, other) == [0.0, 0.25, 0.5, 0.0, 0.0, 0.5]
    assert recorded([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]) == [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    with pytest.raises(EvocacheError, match="not finite"):
        recorded([[1.0], [math.nan]])
    assert profile.Recorder(8, 1).lags == 5


def test_of_two_passes_the_first_counts() -> None:
    recorder = profile.Recorder(2, 1)
    recorder.begin()
    for value in (1.0, 9.0, 2.0, 90.0):
        recorder.record(0, (torch.tensor([value]), None), passes=2)
    assert recorder.changes() == [0.0, 0.5]


def test_psnr_has_a_cap_and_nan_is_refused_by_name() -> None:
    same = torch.full((2, 3, 4, 4), 0.5)
    assert PSNR.values(same, ["a", "b"], same) == [PSNR_CAP, PSNR_CAP]
    assert PSNR.values(same + 0.1, ["a", "b"], same)[0] == pytest.approx(20.0, abs=1e-4)
    with pytest.raises(EvocacheError, match="'psnr' is nan for picture 1"):
        PSNR.values(torch.stack([same[0], same[1] * math.nan]), ["a", "b"], same)
    with pytest.raises(EvocacheError, match="'short' gave 1 values for 2 pictures"):
        Metric("short", lambda *_: [1.0]).values(same, ["a", "b"], same)


def test_a_function_of_ones_own_is_declared_by_its_attributes() -> None:
    declared = own("test_worker:brightness")
    assert (declared.name, declared.maximize, declared.unit) == ("brightness", True, "1")
    assert declared.description == "A metric of one's own: how bright a picture is."


def test_a_thumbnail_fits_and_a_video_shows_its_middle() -> None:
    noise = torch.rand(3, 700, 900)
    assert len(_png(noise)) <= 256 << 10
    video = torch.zeros(5, 3, 8, 8)
    video[2] = 1
    assert Image.open(io.BytesIO(_png(video))).getpixel((0, 0)) == (255, 255, 255)


def test_work_is_that_of_the_modules() -> None:
    """The layers of PixArt, counted by hand: `attn2` has keys and values of the text."""
    this = fixture("sigma")
    pipeline = Pipeline(this.pipe, {"height": 24, "width": 16})
    cost = costs.count(pipeline, Item("an owl", 1), Setup(3.0), 3, None)
    assert pipeline.layout == Layout.pixart(2)
    width, tokens, text, inner = 24, 12 * 8 // 4, 24, 4 * 24
    attn1 = 4 * tokens * width * width + 2 * tokens * tokens * width
    attn2 = 2 * tokens * width * width + 2 * text * width * width + 2 * tokens * text * width
    ff = 2 * tokens * width * inner
    assert list(cost.slot_macs) == [2 * macs for macs in (attn1, attn2, ff)] * 2
    assert list(cost.slot_cache_bytes) == [2 * tokens * width * 4] * 6
    assert cost.image_macs > 0
    faster = costs.count(pipeline, Item("an owl", 1), Setup(1.0), 3, None)
    assert list(faster.slot_macs) == [attn1, attn2, ff] * 2, "guidance doubles the work"
