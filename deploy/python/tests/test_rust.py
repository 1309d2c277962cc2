"""The same schedule is the same value on both sides: canonical form and id over random layouts, by a coordinator that
is asked to check a specification; multiply-accumulates and peak memory of random schedules, by `evocache-worker`.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, free_port, program
from hypothesis import HealthCheck, given, settings
from strategies import layout_and_raw

from evocache import Client, CostModel, Layout, Schedule, __version__
from evocache.messages import layout_from, layout_message, schedule_from
from evocache.v1 import search_service_pb2 as pb
from evocache.v1 import types_pb2 as types

#: Small pictures, so that the worker is fast in any build.
SIZE = ("--height", "24", "--width", "16")
FIXTURES = ROOT / "worker/tests/fixtures"


@pytest.fixture(scope="module")
def client(coordinator: str) -> Client:
    return Client(coordinator)


def spec(layout: Layout, steps: int, schedules: list[types.Schedule]) -> pb.SearchSpec:
    """A specification that imports schedules."""
    return pb.SearchSpec(
        model=pb.ModelRef(name="random"),
        sampling=types.Sampling(steps=[steps], guidance_scale=1),
        allow_forecast=True,
        prompts=[types.Prompt(text="an owl")],
        measurement=types.MeasurementPlan(batch=1, repeats=1),
        objectives=[
            pb.Objective(metric="latency_ratio", direction=types.DIRECTION_MINIMIZE),
            pb.Objective(metric="psnr", direction=types.DIRECTION_MAXIMIZE),
        ],
        budget=pb.Budget(evaluations=10),
        imported=[
            pb.ImportedSchedule(name=str(i), layout=layout_message(layout), schedule=schedule)
            for i, schedule in enumerate(schedules)
        ],
    )


def packed(decisions: bytes) -> bytes:
    padded = decisions + bytes(-len(decisions) % 4)
    return bytes(sum(padded[i + j] << 2 * j for j in range(4)) for i in range(0, len(padded), 4))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=layout_and_raw())
def test_canonical_form_and_id_are_those_of_the_coordinator(client: Client, case: tuple[Layout, int, bytes]) -> None:
    layout, steps, decisions = case
    message = types.Schedule(steps=steps, decisions=packed(decisions))
    request = pb.CreateSearchRequest(spec=spec(layout, steps, [message]), validate_only=True)
    (theirs,) = client.searches.CreateSearch(request).search.spec.imported
    ours = Schedule(layout, steps, decisions)
    assert layout_from(theirs.layout) == layout
    assert theirs.schedule.decisions == ours.packed
    assert theirs.schedule.schedule_id == ours.id
    assert schedule_from(theirs.schedule, layout) == ours


def test_the_package_has_the_version_of_the_programs() -> None:
    told = subprocess.run([program("evocache"), "--version"], check=True, capture_output=True, text=True).stdout
    assert told.split()[1] == __version__


def model_facts(model: str) -> dict[str, object]:
    command = [program("evocache-worker"), "inspect", "--model", str(FIXTURES / model), "--json"] + (
        [] if model == "dit" else list(SIZE)
    )
    facts: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return facts


def cost_model(facts: dict[str, object], layout: Layout) -> CostModel:
    by_name = {c["component"]: c for c in facts["components"]}  # type: ignore[attr-defined]
    parts = [
        by_name[f"{layout.groups[s.group].name}.{layout.groups[s.group].components[s.component].name}"]
        for s in layout.slots
    ]
    return CostModel(
        [part["macs"] for part in parts],
        [part["cache_bytes"] for part in parts],
        int(str(facts["step_macs"])),
        int(str(facts["image_macs"])),
    )


@pytest.mark.parametrize("model", ["flux", "sd35", "dit", "sigma"])
def test_work_and_memory_are_those_of_the_worker(client: Client, coordinator: str, tmp_path: Path, model: str) -> None:
    facts, dice = model_facts(model), random.Random(model)
    layout = Layout.parse(str(facts["layout"]))
    cost, steps, asked = cost_model(facts, layout), 6, 12
    kinds = ([0, 1, 1], [0, 0, 1, 2])
    schedules = [
        Schedule.from_fn(layout, steps, lambda *_, kind=kinds[i % 2]: dice.choice(kind))  # type: ignore[misc]
        for i in range(asked)
    ]
    messages = [types.Schedule(steps=steps, decisions=s.packed, schedule_id=s.id) for s in schedules]
    wanted = spec(layout, steps, messages)
    wanted.model.name = f"{model}-{free_port()}"
    wanted.sampling.guidance_scale = 2.0
    if model != "dit":
        wanted.sampling.height, wanted.sampling.width = 24, 16
    wanted.prompts[0].text = "1" if model == "dit" else "an owl"
    wanted.algorithm.strategy = pb.STRATEGY_IMPORTED
    wanted.budget.evaluations = 2 * asked + 2
    search = client.searches.CreateSearch(pb.CreateSearchRequest(spec=wanted)).search.search_id
    worker = subprocess.Popen(
        [
            program("evocache-worker"),
            "run",
            "--coordinator",
            coordinator,
            "--model",
            str(FIXTURES / model),
            "--model-name",
            wanted.model.name,
            "--threads",
            "1",
            "--metric",
            "psnr",
        ],
        stderr=(tmp_path / "worker.log").open("w"),
    )
    try:
        for event in client.watch(search):
            if event.progress.evaluations >= asked + 1:
                break
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
    finally:
        worker.terminate()
        worker.wait(30)
        client.searches.StopSearch(pb.StopSearchRequest(search_id=search))
    found = client.searches.ListEvaluations(pb.ListEvaluationsRequest(search_id=search, page_size=1000)).evaluations
    by_id = {schedule.id: schedule for schedule in [*schedules, Schedule.all_compute(layout, steps)]}
    assert {e.schedule.schedule_id for e in found} <= set(by_id)
    assert len({e.schedule.schedule_id for e in found}) > asked / 2
    for evaluation in found:
        schedule = by_id[evaluation.schedule.schedule_id]
        assert evaluation.measurement.macs == schedule.macs(cost)
        assert evaluation.measurement.peak_cache_bytes == schedule.peak_cache_bytes(cost)
