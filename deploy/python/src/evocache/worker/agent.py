"""Serves a coordinator: registers, takes leases, renews them while measuring, and answers.

A lease ends in a result, a failure with its reason, or a release: on SIGTERM the candidate goes back and does not count
as an attempt. While the coordinator is away the agent waits longer and longer, and registers again if it was forgotten.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import torch

from .._version import PROTOCOL_VERSION
from ..connection import told
from ..errors import CoordinatorError, EvocacheError
from ..messages import layout_message
from ..v1 import types_pb2 as types
from ..v1 import worker_service_pb2 as pb
from ..v1.worker_service_pb2_grpc import WorkerServiceStub
from .evaluation import Prepared
from .metrics import Metric
from .pipeline import Cancelled, Pipeline

log = logging.getLogger("evocache.worker")
_T = TypeVar("_T")
#: Reasons after which a call of this worker cannot succeed any more.
_FINAL = {"PROTOCOL_VERSION", "WORKER_QUARANTINED", "ROLE_NEEDED", "WORKER_OF_ANOTHER", "TOKEN_EXPIRED"}
_AWAY = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}


class Agent:
    def __init__(
        self,
        channel: grpc.Channel,
        coordinator: str,
        pipeline: Pipeline,
        metrics: list[Metric],
        identity: dict[str, Any],
        until_idle: bool = False,
    ) -> None:
        self._stub = WorkerServiceStub(channel)
        self._coordinator, self._pipeline, self._metrics = coordinator, pipeline, metrics
        self._identity, self._until_idle = identity, until_idle
        self._stopping = threading.Event()
        self._worker_id = ""
        self._wait_seconds = 20.0
        self._prepared: dict[str, Prepared] = {}

    def stop(self) -> None:
        """Ends the work: a candidate in hand goes back."""
        self._stopping.set()
        self._pipeline.cancel.set()

    def run(self) -> None:
        """Works until it is stopped, drained, or idle if it was told so. Raises if the coordinator refuses it."""
        self._register()
        worked = False
        while not self._stopping.is_set():
            wait = 0.0 if self._until_idle and worked else self._wait_seconds
            request = pb.AcquireLeaseRequest(worker_id=self._worker_id)
            request.wait.FromMilliseconds(int(1000 * wait))
            answer = self._try(self._acquire, request, wait + 30)
            if answer is None:
                continue
            if answer.HasField("lease"):
                self._evaluate(answer.lease)
                worked = True
            elif answer.draining or (self._until_idle and worked):
                break
            elif answer.idle_reason:
                log.info("no work: %s", answer.idle_reason)
        self._deregister()

    def _call(self, method: Callable[..., _T], request: Any, timeout: float) -> _T:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise told(error, self._coordinator) from error

    def _acquire(self, request: pb.AcquireLeaseRequest, timeout: float) -> pb.AcquireLeaseResponse | None:
        """Waits for a lease, but not once the agent is stopped."""
        waiting = self._stub.AcquireLease.future(request, timeout=timeout)
        while not self._stopping.is_set():
            try:
                return waiting.result(timeout=0.2)
            except grpc.FutureTimeoutError:
                continue
        waiting.cancel()
        return None

    def _try(self, method: Callable[..., _T], request: Any, timeout: float) -> _T | None:
        """Calls until it succeeds. `None` if the agent was stopped, or registered anew: then the request is void."""
        pause = 0.5
        while True:
            try:
                return self._call(method, request, timeout)
            except CoordinatorError as error:
                if error.reason == "WORKER_NOT_FOUND":
                    log.info("the coordinator has forgotten this worker; registering again")
                    self._register()
                    return None
                if error.reason in _FINAL or error.code not in _AWAY:
                    raise
                log.info("%s; trying again in %.1f s", error, pause)
                if self._stopping.wait(pause):
                    return None
                pause = min(30.0, 2 * pause)

    def _register(self) -> None:
        declared = [
            types.MetricDeclaration(
                name=metric.name,
                direction=types.DIRECTION_MAXIMIZE if metric.maximize else types.DIRECTION_MINIMIZE,
                unit=metric.unit,
                description=metric.description[:200],
            )
            for metric in self._metrics
        ]
        request = pb.RegisterWorkerRequest(
            request_id=str(uuid.uuid4()),
            protocol_version=PROTOCOL_VERSION,
            layout=layout_message(self._pipeline.layout),
            forecast=True,
            grids=self._pipeline.samples_on_grids,
            profiles=True,
            metrics=declared,
            **self._identity,
        )
        answer = self._try(self._stub.RegisterWorker, request, 30)
        if answer is not None:
            self._worker_id = answer.worker_id
            self._wait_seconds = min(20.0, answer.max_wait.ToMilliseconds() / 1000)
            log.info("registered as %s (%s)", self._worker_id, self._identity["name"])

    def _deregister(self) -> None:
        if not self._worker_id:
            return
        request = pb.DeregisterWorkerRequest(request_id=str(uuid.uuid4()), worker_id=self._worker_id)
        try:
            self._call(self._stub.DeregisterWorker, request, 10)
        except CoordinatorError as error:
            log.info("not deregistered: %s", error)

    def _evaluate(self, lease: pb.Lease) -> None:
        """Measures a candidate and ends its lease."""
        name = f"candidate {lease.candidate} of {lease.search_ref.partition('~')[0]}"
        ref = pb.LeaseRef(search_ref=lease.search_ref, candidate=lease.candidate, epoch=lease.epoch)
        done = threading.Event()
        self._pipeline.cancel.clear()
        if self._stopping.is_set():
            self._pipeline.cancel.set()
        renewing = threading.Thread(
            target=self._renew, args=(ref, lease.ttl.ToMilliseconds() / 1000, done), daemon=True
        )
        renewing.start()
        failure: tuple[str, bool] | None = None
        try:
            result = self._prepare(lease.search_ref).measure(lease)
        except Cancelled:
            if self._stopping.is_set():
                self._end(
                    self._stub.ReleaseLease,
                    pb.ReleaseLeaseRequest(request_id=str(uuid.uuid4()), worker_id=self._worker_id, lease=ref),
                    f"{name}: given back",
                )
            else:
                log.info("%s: cancelled", name)
            return
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            failure = (f"out of device memory: {error}", False)
        except CoordinatorError as error:
            log.info("%s: %s", name, error)
            return
        except EvocacheError as error:
            failure = (str(error), False)
        except Exception as error:
            log.exception("%s failed", name)
            failure = (f"{type(error).__name__}: {error}", True)
        finally:
            done.set()
            renewing.join()
        if failure is None:
            complete = pb.CompleteEvaluationRequest(
                request_id=str(uuid.uuid4()), worker_id=self._worker_id, lease=ref, measurement=result
            )
            self._end(self._stub.CompleteEvaluation, complete, f"{name}: measured")
        else:
            reason, retryable = failure
            fail = pb.FailEvaluationRequest(
                request_id=str(uuid.uuid4()), worker_id=self._worker_id, lease=ref, reason=reason, retryable=retryable
            )
            self._end(self._stub.FailEvaluation, fail, f"{name}: {reason}")

    def _end(self, method: Callable[..., Any], request: Any, what: str) -> None:
        """Ends a lease. If the coordinator has other plans for it by now, that is all."""
        try:
            taken = self._try(method, request, 60)
            log.info("%s" if taken is not None else "%s, but the coordinator could not be told", what)
        except CoordinatorError as error:
            if error.reason in _FINAL:
                raise
            log.info("%s, but the coordinator did not take it: %s", what, error)

    def _prepare(self, search_ref: str) -> Prepared:
        if search_ref not in self._prepared:
            request = pb.GetCalibrationRequest(worker_id=self._worker_id, search_ref=search_ref)
            calibration = self._call(self._stub.GetCalibration, request, 30)
            # The pictures of one search at a time.
            self._prepared = {search_ref: Prepared(self._pipeline, self._metrics, calibration)}
        return self._prepared[search_ref]

    def _renew(self, ref: pb.LeaseRef, ttl: float, done: threading.Event) -> None:
        while not done.wait(max(0.2, ttl / 3)):
            request = pb.RenewLeasesRequest(worker_id=self._worker_id, leases=[ref])
            try:
                answer = self._call(self._stub.RenewLeases, request, 10)
            except CoordinatorError as error:
                log.info("the lease was not renewed: %s", error)
                continue
            if any(status.cancel for status in answer.leases):
                self._pipeline.cancel.set()
                return
