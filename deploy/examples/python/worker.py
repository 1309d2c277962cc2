"""An evocache worker on diffusers, for a model that evocache's own worker does not run, or a stack you already have.

    pip install -r requirements.txt
    python worker.py --coordinator 127.0.0.1:7447 --model path/to/pixart --name emoji
    python worker.py --coordinator https://coordinator.lan:7447 --ca ca.pem --token-file gpu-1.token --model path/to/pixart

It does what any worker does: register, take leases, measure, answer. The model is in cached_pixart.py.
"""
import argparse, pathlib, sys, threading, uuid
import grpc, torch
from cached_pixart import COMPONENTS, CachedPixArt, Cancelled
from connection import add_flags, connect

ROOT = pathlib.Path(__file__).resolve().parents[3] / "proto"
sys.path.insert(0, str(ROOT))
types, _ = grpc.protos_and_services("evocache/v1/types.proto")
pb, stubs = grpc.protos_and_services("evocache/v1/worker_service.proto")

def renew(worker, worker_id, lease, model, done):
    ref = pb.LeaseRef(search_ref=lease.search_ref, candidate=lease.candidate, epoch=lease.epoch)
    while not done.wait(max(0.2, lease.ttl.ToSeconds() / 3)):
        answer = worker.RenewLeases(pb.RenewLeasesRequest(worker_id=worker_id, leases=[ref]), timeout=10)
        if answer.leases[0].cancel:
            model.cancel.set()


def message(psnr, seconds, **measured):
    values = types.MetricValues(name="psnr", values=psnr, baseline_mean=100.0)
    measurement = types.Measurement(metrics=[values], **measured)
    measurement.device_time.FromMilliseconds(int(1000 * seconds))
    return measurement


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(args)
    args.add_argument("--model", required=True, help="a PixArt folder in diffusers format")
    args.add_argument("--name", help="the model's name in searches; default: the folder's")
    args.add_argument("--until-idle", action="store_true", help="end when there is no work")
    args = args.parse_args()
    model, prepared = CachedPixArt(args.model), {}
    worker = stubs.WorkerServiceStub(connect(args))
    group = types.BlockGroup(name="block", count=len(model.blocks), components=[types.Component(name=c) for c in COMPONENTS])
    me = worker.RegisterWorker(pb.RegisterWorkerRequest(
        request_id=str(uuid.uuid4()), protocol_version=1, name=f"python-{uuid.uuid4().hex[:6]}", device="cpu (torch)",
        software=f"diffusers on torch {torch.__version__}", model=args.name or pathlib.Path(args.model).resolve().name,
        fingerprint=model.fingerprint, layout=types.Layout(groups=[group]),
        metrics=[types.MetricDeclaration(name="psnr", direction=types.DIRECTION_MAXIMIZE, unit="dB",
                                         description="to the uncached picture")]), timeout=30)
    while True:
        request = pb.AcquireLeaseRequest(worker_id=me.worker_id)
        request.wait.FromSeconds(0 if args.until_idle and prepared else 20)
        lease = (answer := worker.AcquireLease(request, timeout=60)).lease
        if answer.draining or (args.until_idle and prepared and not answer.HasField("lease")):
            worker.DeregisterWorker(pb.DeregisterWorkerRequest(worker_id=me.worker_id), timeout=10)
            return
        if answer.idle_reason:
            print(f"no work: {answer.idle_reason}", file=sys.stderr)
        if not answer.HasField("lease"):
            continue
        done, ref = threading.Event(), pb.LeaseRef(search_ref=lease.search_ref, candidate=lease.candidate, epoch=lease.epoch)
        model.cancel.clear()
        threading.Thread(target=renew, args=(worker, me.worker_id, lease, model, done), daemon=True).start()
        try:
            if lease.search_ref not in prepared:
                call = pb.GetCalibrationRequest(worker_id=me.worker_id, search_ref=lease.search_ref)
                prepared = {lease.search_ref: worker.GetCalibration(call, timeout=30)}
                model.prepare(prepared[lease.search_ref])
            calibration = prepared[lease.search_ref]
            count = lease.prompts or len(calibration.prompts)  # only the first so many; 0: all
            result = message(**model.evaluate(calibration, lease.schedule, count))
            worker.CompleteEvaluation(pb.CompleteEvaluationRequest(
                request_id=str(uuid.uuid4()), worker_id=me.worker_id, lease=ref, measurement=result), timeout=60)
        except Cancelled:
            print(f"candidate {lease.candidate}: cancelled", file=sys.stderr)
        except grpc.RpcError as error:  # superseded, or the coordinator is away: the lease runs out by itself
            print(f"candidate {lease.candidate}: {error.code().name}: {error.details()}", file=sys.stderr)
        finally:
            done.set()


if __name__ == "__main__":
    main()
