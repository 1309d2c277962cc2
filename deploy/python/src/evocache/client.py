"""Ask a coordinator: launch a search, follow it, take the best schedule.

    with evocache.Client("http://127.0.0.1:7447") as client:
        search = client.launch(model="emoji", prompts=["an owl"], steps=[20, 12], evaluations=20)
        for event in client.watch(search): ...
        best = client.best(search, where=["psnr>=30"])

The messages are those of `evocache.v1`; `client.searches` has every call of the service.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from .connection import DEFAULT, call, check, connect, told
from .errors import CoordinatorError
from .formats import Grid, ScheduleFile
from .messages import grid_from, grid_message, layout_from, schedule_from
from .schedule import Schedule
from .v1 import search_service_pb2 as pb
from .v1 import types_pb2 as types
from .v1.search_service_pb2_grpc import SearchServiceStub


@dataclass(frozen=True)
class Best:
    """The best schedule under some conditions. `values` are measured; `speedup` is estimated from all measurements.
    `quality_ratio` is the share kept of the uncached quality, `None` where that is 0."""

    file: ScheduleFile
    candidate: int
    speedup: float
    quality_metric: str
    quality_ratio: float | None
    values: Mapping[str, float]

    @property
    def schedule(self) -> Schedule:
        return self.file.schedule

    @property
    def grid(self) -> Grid | None:
        return self.file.grid


def condition(text: str) -> pb.Condition:
    """Reads `psnr>=28`, `lpips<=0.05`, or `clip_score>=98%` for a share kept of the uncached value."""
    match = re.fullmatch(r"\s*([a-z][a-z0-9_]*)\s*(>=|<=)\s*([0-9.eE+-]+)(%?)\s*", text)
    value = float(match[3]) if match and re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", match[3]) else math.nan
    if match is None or not math.isfinite(value):
        raise ValueError(f"'{text}' is not a condition; write a metric, >= or <=, and a value, such as psnr>=28")
    operator = pb.OPERATOR_AT_LEAST if match[2] == ">=" else pb.OPERATOR_AT_MOST
    percent = match[4] == "%"
    return pb.Condition(
        metric=match[1], operator=operator, value=value / 100 if percent else value, of_uncached=percent
    )


class Client:
    """A connection to a coordinator, checked when it is made. Takes the arguments of `evocache.connection.connect`;
    `timeout` is that of a call in seconds."""

    def __init__(self, coordinator: str = DEFAULT, *, timeout: float = 30.0, **connection: Any) -> None:
        self._coordinator, self._timeout = coordinator, timeout
        self._channel = connect(coordinator, **connection)
        self.searches = SearchServiceStub(self._channel)
        try:
            check(self._channel, coordinator, timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        return call(method, request, self._coordinator, self._timeout)

    def launch(
        self,
        *,
        model: str,
        prompts: Sequence[str],
        steps: Sequence[int],
        evaluations: int,
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
        metric: str = "psnr",
        minimize: bool = False,
        bound: float | None = None,
        batch: int = 1,
        warmup: int = 1,
        repeats: int = 2,
        thumbnails: int = 1,
        grids: Sequence[Grid] = (),
        search_id: str = "",
        seed: int = 0,
        allow_forecast: bool = False,
    ) -> str:
        """Creates a search for latency against a metric, and returns its id. The seed of a prompt is its index. For all
        that a search can have, make a `CreateSearchRequest` and call `searches.CreateSearch`."""
        direction = types.DIRECTION_MINIMIZE if minimize else types.DIRECTION_MAXIMIZE
        spec = pb.SearchSpec(
            model=pb.ModelRef(name=model),
            sampling=types.Sampling(
                steps=steps,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                grids=[grid_message(grid) for grid in grids],
            ),
            prompts=[types.Prompt(text=text, seed=seed) for seed, text in enumerate(prompts)],
            measurement=types.MeasurementPlan(batch=batch, warmup=warmup, repeats=repeats, thumbnails=thumbnails),
            objectives=[
                pb.Objective(metric="latency_ratio", direction=types.DIRECTION_MINIMIZE),
                pb.Objective(metric=metric, direction=direction, bound=bound),
            ],
            budget=pb.Budget(evaluations=evaluations),
            seed=seed,
            allow_forecast=allow_forecast,
        )
        request = pb.CreateSearchRequest(request_id=str(uuid.uuid4()), search_id=search_id, spec=spec)
        return str(self._call(self.searches.CreateSearch, request).search.search_id)

    def search(self, search: str) -> pb.Search:
        """A search as it is now."""
        answer: pb.Search = self._call(self.searches.GetSearch, pb.GetSearchRequest(search_id=search)).search
        return answer

    def watch(self, search: str) -> Iterator[pb.WatchSearchResponse]:
        """The state of a search now, and after every change until it ends."""
        try:
            yield from self.searches.WatchSearch(pb.WatchSearchRequest(search_id=search))
        except grpc.RpcError as error:
            raise told(error, self._coordinator) from error

    def front(self, search: str) -> list[types.Evaluation]:
        """The front, the fastest first. Begins again if it changes between two pages."""
        for _ in range(10):
            request, found = pb.GetFrontRequest(search_id=search), []
            try:
                while True:
                    page = self._call(self.searches.GetFront, request)
                    found += page.evaluations
                    if not page.next_page_token:
                        return found
                    request.page_token = page.next_page_token
            except CoordinatorError as error:
                if error.reason != "LIST_CHANGED":
                    raise
        raise CoordinatorError(f"the front of '{search}' changes faster than it can be read: ask again later")

    def best(
        self,
        search: str,
        *,
        where: Sequence[str] = (),
        min_quality_ratio: float | None = None,
        preference: pb.Preference.ValueType = pb.PREFERENCE_FASTEST,
        ignore_bounds: bool = False,
    ) -> Best:
        """The best schedule that keeps the bounds of the search and all of these conditions. `min_quality_ratio`: the
        least share to keep of the uncached quality, such as 0.98."""
        conditions = [condition(text) for text in where]
        if min_quality_ratio is not None:
            conditions.append(pb.Condition(operator=pb.OPERATOR_AT_LEAST, value=min_quality_ratio, of_uncached=True))
        request = pb.GetBestScheduleRequest(
            search_id=search, conditions=conditions, preference=preference, ignore_bounds=ignore_bounds
        )
        answer = self._call(self.searches.GetBestSchedule, request)
        if len(answer.conditions) < len(conditions):
            raise CoordinatorError(f"the coordinator at {self._coordinator} is too old to know conditions: update it")
        evaluation = answer.evaluation
        schedule = schedule_from(evaluation.schedule, layout_from(answer.layout))
        sampling = self.search(search).spec.sampling
        made_with = {"guidance_scale": f"{sampling.guidance_scale:g}"}
        for name in ("height", "width"):
            if sampling.HasField(name):
                made_with[name] = str(getattr(sampling, name))
        return Best(
            ScheduleFile(schedule, made_with, grid_from(sampling, schedule.steps)),
            evaluation.candidate,
            answer.speedup,
            answer.quality_metric,
            answer.quality_ratio if answer.HasField("quality_ratio") else None,
            dict(evaluation.values),
        )
