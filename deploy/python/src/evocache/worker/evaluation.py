"""Measures candidates: uncached pictures and costs once per search, then for each candidate latency between interleaved
uncached runs, quality, work and cache memory. Knows messages, not connections.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..cost import CostModel
from ..errors import EvocacheError
from ..formats import Grid, ScheduleFile
from ..messages import grid_from, schedule_from
from ..v1 import types_pb2 as types
from ..v1 import worker_service_pb2 as pb
from . import costs, profile
from .metrics import Metric
from .pipeline import Item, Pipeline, Setup

log = logging.getLogger("evocache.worker")
MAX_THUMBNAIL_BYTES = 256 << 10


class Prepared:
    """A search on this worker: its prompts, its uncached pictures and their scores, the costs of each step count."""

    def __init__(self, pipeline: Pipeline, metrics: Sequence[Metric], calibration: pb.GetCalibrationResponse) -> None:
        sampling = calibration.sampling
        if not calibration.prompts or not sampling.steps:
            raise EvocacheError("the calibration has no prompts or no step counts")
        if sampling.grids and not pipeline.samples_on_grids:
            raise EvocacheError("the search has grids, and this pipeline cannot sample on them")
        self.pipeline, self.metrics, self.plan = pipeline, metrics, calibration.measurement
        self.items = [Item(prompt.text, prompt.seed) for prompt in calibration.prompts]
        self.setup = Setup(
            sampling.guidance_scale,
            sampling.negative_prompt,
            sampling.height if sampling.HasField("height") else None,
            sampling.width if sampling.HasField("width") else None,
        )
        self.steps = max(sampling.steps)
        self.grids: dict[int, Grid | None] = {steps: grid_from(sampling, steps) for steps in sampling.steps}
        self.costs: dict[int, CostModel] = {
            steps: costs.count(pipeline, self.items[0], self.setup, steps, grid) for steps, grid in self.grids.items()
        }
        drawn = [self._uncached(batch).pictures for batch in self.batches(len(self.items))]
        self.pictures = torch.cat(drawn)
        self.scores = [self._values(metric, self.pictures) for metric in metrics]

    def batches(self, count: int) -> list[list[Item]]:
        size = max(1, self.plan.batch)
        return [self.items[first : min(first + size, count)] for first in range(0, count, size)]

    def _uncached(self, batch: Sequence[Item]) -> Any:
        return self.pipeline.draw_uncached(batch, self.setup, self.steps, self.grids[self.steps])

    def _values(self, metric: Metric, pictures: torch.Tensor) -> list[float]:
        count = len(pictures)
        return metric.values(pictures, [item.text for item in self.items[:count]], self.pictures[:count])

    def measure(self, lease: pb.Lease) -> types.Measurement:
        """What the lease's schedule measures on the first prompts, as many as it says."""
        begun = time.perf_counter()
        count = min(lease.prompts or len(self.items), len(self.items))
        schedule = schedule_from(lease.schedule, self.pipeline.layout)
        if schedule.steps not in self.costs:
            raise EvocacheError(f"the schedule has {schedule.steps} steps, which the search does not have")
        file = ScheduleFile(schedule, {}, self.grids[schedule.steps])
        batches = self.batches(count)
        for i in range(self.plan.warmup):
            self.pipeline.draw(batches[i % len(batches)], self.setup, file)
        latency, uncached, pictures, peak = [], [], [], 0
        # Uncached runs stand between those of the candidate, so that both meet the same moods of the machine.
        for i in range(max(len(batches), self.plan.repeats)):
            batch = batches[i % len(batches)]
            if i < self.plan.repeats:
                uncached.append(self._uncached(batch).seconds * 1e6 / len(batch))
            drawn = self.pipeline.draw(batch, self.setup, file)
            latency.append(drawn.seconds * 1e6 / len(batch))
            peak = max(peak, drawn.peak_cache_bytes // len(batch))
            if i < len(batches):
                pictures.append(drawn.pictures)
        seen = torch.cat(pictures)
        measurement = types.Measurement(
            metrics=[
                types.MetricValues(
                    name=metric.name,
                    values=self._values(metric, seen),
                    baseline_mean=sum(scores[:count]) / count,
                )
                for metric, scores in zip(self.metrics, self.scores, strict=True)
            ],
            latency_us=latency,
            baseline_latency_us=uncached,
            macs=max(1, schedule.macs(self.costs[schedule.steps])),
            baseline_macs=max(1, self._uncached_macs()),
            peak_cache_bytes=peak,
            thumbnails=[_png(picture) for picture in seen[: self.plan.thumbnails]],
        )
        if lease.profile:
            self._add_profile(measurement, self.items[:count], schedule.steps)
        measurement.device_time.FromMicroseconds(int(1e6 * (time.perf_counter() - begun)))
        return measurement

    def _add_profile(self, measurement: types.Measurement, items: list[Item], steps: int) -> None:
        """Adds the calibration profile. It is optional, so a failure does not cost the measurement."""
        try:
            recorder = profile.measure(self.pipeline, items, self.setup, steps, self.grids[steps])
            changes = [] if recorder is None else recorder.changes()
        except (EvocacheError, RuntimeError) as error:
            log.warning("no calibration profile: %s", error)
            return
        if recorder is not None:
            measurement.profile.steps, measurement.profile.lags = recorder.steps, recorder.lags
            measurement.profile.changes.extend(changes)

    def _uncached_macs(self) -> int:
        cost = self.costs[self.steps]
        return self.steps * (sum(cost.slot_macs) + cost.step_macs) + cost.image_macs


def _png(picture: torch.Tensor) -> bytes:
    """A small PNG; of a video, the frame in its middle."""
    from PIL import Image

    if picture.dim() == 4:
        picture = picture[len(picture) // 2]
    image = Image.fromarray((picture.movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy())
    while True:
        file = io.BytesIO()
        image.save(file, "PNG")
        if file.tell() <= MAX_THUMBNAIL_BYTES:
            return file.getvalue()
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
