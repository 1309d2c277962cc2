"""The client and the worker against a real coordinator: a whole search, its best schedule attached, a candidate that is
given back, refusals; and the Rust worker beside this one on the bundled model.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, free_port, program
from tiny import fixture

import evocache
from evocache import Client, CoordinatorError, Grid
from evocache.client import condition
from evocache.v1 import search_service_pb2 as pb
from evocache.v1 import types_pb2 as types

FIXTURES = ROOT / "worker/tests/fixtures"


@contextmanager
def torch_worker(coordinator: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "evocache.worker", "--coordinator", coordinator, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with log.open("w") as file:
        worker = subprocess.Popen(command, stderr=file, env=environment)
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(60)


def follow(client: Client, search: str, worker: subprocess.Popen[bytes], log: Path) -> pb.Search:
    """A search at its end. Fails when its worker does."""
    while True:
        found = client.search(search)
        if found.HasField("end_time"):
            return found
        assert worker.poll() is None, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A fixture of the worker as a complete folder: with an encoder of pictures too."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / name
            fixture(name).pipe.save_pretrained(made[name])
        return made[name]

    return make


def brightness(pictures: object, _prompts: list[str]) -> list[float]:
    """A metric of one's own: how bright a picture is."""
    return [float(picture.mean()) + 0.1 for picture in pictures]  # type: ignore[attr-defined]


def broken(_pictures: object, _prompts: list[str]) -> list[float]:
    raise KeyError("planted")


@pytest.mark.parametrize("model", ["sigma", "flux"])
def test_a_whole_search(coordinator: str, tmp_path: Path, folder: Callable[[str], Path], model: str) -> None:
    log, name = tmp_path / "log", f"{model}-{free_port()}"
    size = ["--pipeline-arg", "height=24", "--pipeline-arg", "width=16"]
    size += ["--pipeline-arg", "max_sequence_length=24"]
    own = ["--metric", "psnr", "--metric", "test_worker:brightness"]
    with (
        Client(coordinator) as client,
        torch_worker(coordinator, log, "--model", str(folder(model)), "--name", name, *size, *own) as worker,
    ):
        search = client.launch(
            model=name,
            prompts=["an owl", "a cat"],
            steps=[6, 4],
            evaluations=10,
            guidance_scale=3.0,
            batch=2,
            warmup=0,
            allow_forecast=True,
        )
        found = follow(client, search, worker, log)
        assert found.state == pb.SEARCH_STATE_COMPLETED, found.end_reason
        assert [m.name for m in found.model.metrics] == ["psnr", "brightness"]
        front = client.front(search)
        assert front
        assert all(e.measurement.macs <= e.measurement.baseline_macs for e in front)
        assert all(
            e.measurement.thumbnails
            for e in client.searches.ListEvaluations(
                pb.ListEvaluationsRequest(search_id=search, include_thumbnails=True)
            ).evaluations
        )
        best = client.best(search, min_quality_ratio=0.0)
        assert best.values["brightness"] > 0
        assert best.schedule.steps in (6, 4)
        with pytest.raises(CoordinatorError, match="the nearest is candidate") as failed:
            client.best(search, where=["psnr>=101"])
        assert failed.value.reason == "NO_SCHEDULE"

        this = fixture(model)
        attachment = evocache.attach(this.pipe, coordinator=coordinator, search=search, min_quality_ratio=0.0)
        assert attachment.schedule == best.schedule
        this.run(**attachment.settings)
        assert attachment.counts.computed == best.schedule.computed
        assert attachment.counts.peak_bytes == best.values["cache_bytes"] * 2
        evocache.detach(this.pipe)


def test_a_candidate_is_given_back_on_sigterm_and_a_drained_worker_leaves(
    coordinator: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    log, name = tmp_path / "log", f"sigma-{free_port()}"
    arguments = ("--model", str(folder("sigma")), "--name", name, "--worker-name", name)
    with Client(coordinator) as client:
        search = client.launch(model=name, prompts=["an owl"] * 200, steps=[40, 20], evaluations=50, guidance_scale=3.0)
        with torch_worker(coordinator, log, *arguments) as worker:
            while client.search(search).progress.running == 0:
                assert worker.poll() is None, log.read_text()
                time.sleep(0.05)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0, log.read_text()
        assert "candidate 0" in log.read_text()
        assert "given back" in log.read_text()
        assert client.search(search).progress.running == 0
        client.searches.StopSearch(pb.StopSearchRequest(search_id=search))
        with torch_worker(coordinator, log, *arguments) as worker:
            while "registered as" not in log.read_text():
                assert worker.poll() is None, log.read_text()
                time.sleep(0.05)
            worker_id = re.findall(r"registered as (\S+)", log.read_text())[-1]
            command = [program("evocache"), "--coordinator", coordinator, "drain", worker_id]
            subprocess.run(command, check=True, capture_output=True)
            assert worker.wait(60) == 0, log.read_text()


def test_what_goes_wrong_is_a_failed_evaluation_with_its_reason(
    coordinator: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    log, name = tmp_path / "log", f"sigma-{free_port()}"
    arguments = ["--model", str(folder("sigma")), "--name", name, "--metric", "test_worker:broken"]
    with Client(coordinator) as client, torch_worker(coordinator, log, *arguments) as worker:
        search = client.launch(model=name, prompts=["x"], steps=[3, 2], evaluations=5, metric="broken", warmup=0)
        while "KeyError: 'planted'" not in log.read_text():
            assert worker.poll() is None, log.read_text()
            time.sleep(0.05)
        client.searches.StopSearch(pb.StopSearchRequest(search_id=search))


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("clip", [], "error: cannot load"),
        ("sigma", ["--pipeline-arg", "colour=1"], "takes no argument 'colour'"),
        ("sigma", ["--metric", "nothing:at_all"], "metric 'nothing:at_all' cannot be imported"),
        ("sigma", ["--metric", "nothing"], "is not package.module:function"),
        ("sigma", ["--metric", "psnr", "--metric", "psnr"], "'psnr' is given twice"),
    ],
)
def test_a_wrong_command_line_is_told(
    coordinator: str, folder: Callable[[str], Path], model: str, arguments: list[str], expected: str
) -> None:
    from evocache.worker.__main__ import main

    place = FIXTURES / "clip" if model == "clip" else folder(model)
    with pytest.raises(SystemExit, match=re.escape(expected)):
        main(["--coordinator", coordinator, "--model", str(place), *arguments])


def test_what_is_no_coordinator_is_told(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    with pytest.raises(CoordinatorError, match="no coordinator answers at 127.0.0.1:1"):
        Client("127.0.0.1:1", timeout=2)
    with pytest.raises(CoordinatorError, match="is not an address"):
        Client("ftp://127.0.0.1:1")
    with pytest.raises(CoordinatorError, match="cannot read"):
        Client("https://127.0.0.1:1", ca=str(tmp_path / "gone.pem"))
    with pytest.raises(CoordinatorError, match="not encrypted"):
        Client("127.0.0.1:1", ca="x.pem")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(CoordinatorError, match=r"no coordinator that speaks evocache\.v1.*update the older"):
        Client(f"127.0.0.1:{port}")
    server.stop(None)


def test_conditions_are_a_metric_an_operator_and_a_value() -> None:
    assert condition("psnr>=28") == pb.Condition(metric="psnr", operator=pb.OPERATOR_AT_LEAST, value=28)
    assert condition(" lpips <= 0.05 ") == pb.Condition(metric="lpips", operator=pb.OPERATOR_AT_MOST, value=0.05)
    assert condition("clip_score>=98%").of_uncached
    for bad in ["psnr", "psnr>28", ">=28", "psnr>=", "psnr>=x", "psnr>=nan", "psnr>=1e999"]:
        with pytest.raises(ValueError, match="not a condition"):
            condition(bad)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_both_workers_measure_the_same_on_the_bundled_model(coordinator: str, tmp_path: Path) -> None:
    """Scores of equal schedules, of the Rust worker and of this one, on the grid that the example search has."""
    model = ROOT / "worker/models/emoji"
    prompts = (model / "prompts.txt").read_text().splitlines()[:4]
    grids = [Grid(6, solver_order=1, timesteps=(999, 799, 599, 399, 249, 50))]
    with Client(coordinator) as client:

        def search(name: str, imported: list[pb.ImportedSchedule]) -> tuple[str, pb.CreateSearchRequest]:
            plain = client.launch(
                model=name,
                prompts=prompts,
                steps=[20, 6],
                evaluations=12,
                guidance_scale=3.0,
                batch=2,
                grids=grids,
                metric="clip_score",
            )
            spec = client.search(plain).spec
            if not imported:
                return plain, pb.CreateSearchRequest(spec=spec)
            client.searches.StopSearch(pb.StopSearchRequest(search_id=plain))
            spec.imported.extend(imported)
            spec.algorithm.strategy = pb.STRATEGY_IMPORTED
            spec.budget.evaluations = 2 * len(imported) + 2
            created = client.searches.CreateSearch(pb.CreateSearchRequest(spec=spec))
            return created.search.search_id, pb.CreateSearchRequest(spec=spec)

        def measured(found: str) -> dict[str, types.Evaluation]:
            request = pb.ListEvaluationsRequest(search_id=found, page_size=1000)
            return {e.schedule.schedule_id: e for e in client.searches.ListEvaluations(request).evaluations}

        first, log = f"rust-{free_port()}", tmp_path / "log"
        rust, _ = search(first, [])
        command = [program("evocache-worker"), "run", "--coordinator", coordinator, "--model", str(model)]
        command += ["--model-name", first, "--threads", "1"]
        worker = subprocess.Popen(command, stderr=log.open("w"))
        try:
            follow(client, rust, worker, log)
        finally:
            worker.terminate()
            worker.wait(60)
        by_rust, layout = measured(rust), client.search(rust).model.layout
        imported = [pb.ImportedSchedule(name=i, layout=layout, schedule=e.schedule) for i, e in by_rust.items()]
        second = f"torch-{free_port()}"
        torch, _ = search(second, imported)
        with torch_worker(coordinator, log, "--model", str(model), "--name", second) as worker:
            follow(client, torch, worker, log)
        by_torch = measured(torch)
    assert len(by_torch.keys() & by_rust.keys()) >= 10
    for name in by_torch.keys() & by_rust.keys():
        ours, theirs = by_torch[name], by_rust[name]
        steps = ours.schedule.steps
        print(
            f"{name[:12]} {steps} steps: "
            + ", ".join(
                f"{metric} {ours.values[metric]:.4f} / {theirs.values[metric]:.4f}"
                for metric in ("clip_score", "psnr", "latency_us", "macs", "cache_bytes")
            )
        )
        assert abs(ours.values["clip_score"] - theirs.values["clip_score"]) < 1e-3
        assert ours.values["psnr"] == pytest.approx(theirs.values["psnr"], abs=0.1)
        assert ours.values["cache_bytes"] == theirs.values["cache_bytes"]
        assert ours.values["macs_ratio"] == pytest.approx(theirs.values["macs_ratio"], rel=0.02)
