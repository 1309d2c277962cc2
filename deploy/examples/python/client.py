"""Ask an evocache coordinator from Python: launch a search, watch it, take the best schedule.

    pip install grpcio grpcio-tools
    python client.py --coordinator 127.0.0.1:7447 launch --model emoji --evaluations 20 prompts.txt
    python client.py best SEARCH --where 'psnr>=30' --min-quality-ratio 0.98 > schedule.json
    python client.py --coordinator https://coordinator.lan:7447 --ca ca.pem --token-file ci.token front SEARCH
"""
import argparse, json, pathlib, sys, uuid
import grpc
from connection import add_flags, connect

ROOT = pathlib.Path(__file__).resolve().parents[3] / "proto"
sys.path.insert(0, str(ROOT))
types, _ = grpc.protos_and_services("evocache/v1/types.proto")
pb, stubs = grpc.protos_and_services("evocache/v1/search_service.proto")


def launch(searches, args):
    """Creates a search for latency against PSNR and follows it to its end."""
    prompts = [line.strip() for line in open(args.prompts) if line.strip()][:args.count]
    spec = pb.SearchSpec(
        model=pb.ModelRef(name=args.model),
        sampling=types.Sampling(steps=args.steps, guidance_scale=args.guidance),
        prompts=[types.Prompt(text=text, seed=seed) for seed, text in enumerate(prompts)],
        measurement=types.MeasurementPlan(batch=args.batch, warmup=1, repeats=2, thumbnails=1),
        objectives=[pb.Objective(metric="latency_ratio", direction=types.DIRECTION_MINIMIZE),
                    pb.Objective(metric="psnr", direction=types.DIRECTION_MAXIMIZE)],
        budget=pb.Budget(evaluations=args.evaluations))
    request = pb.CreateSearchRequest(request_id=str(uuid.uuid4()), spec=spec)
    search = searches.CreateSearch(request, timeout=30).search
    print(search.search_id, flush=True)
    for event in searches.WatchSearch(pb.WatchSearchRequest(search_id=search.search_id)):
        progress = event.progress
        print(f"{pb.SearchState.Name(event.state)}: {progress.evaluations} evaluations, front of {progress.front_size}, "
              f"hypervolume {progress.hypervolume:.4f}", file=sys.stderr, flush=True)


def front(searches, args):
    """Prints the front, a line per schedule."""
    request = pb.GetFrontRequest(search_id=args.search)
    while True:
        answer = searches.GetFront(request, timeout=30)
        for e in answer.evaluations:
            # Estimated by all measurements; e.values has what this one measured.
            print(f"candidate {e.candidate}: {1 / e.latency_ratio.value:.2f}x faster, psnr {e.values['psnr']:.1f} dB, "
                  f"{e.values['cache_bytes'] / 1024:.0f} KiB, {e.schedule.steps} steps, by {e.worker_name}")
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def condition(text):
    """Reads METRIC>=VALUE or METRIC<=VALUE. The coordinator refuses a metric that the search does not measure."""
    for sign, operator in ((">=", pb.OPERATOR_AT_LEAST), ("<=", pb.OPERATOR_AT_MOST)):
        metric, found, value = text.partition(sign)
        if found:
            return pb.Condition(metric=metric.strip(), operator=operator, value=float(value))
    raise ValueError(text)


def best(searches, args):
    """Prints the fastest schedule that has all of this, as ECAD's JSON."""
    conditions = list(args.where)
    if args.min_quality_ratio is not None:
        # Of no metric by name: of what quality means in this search.
        conditions.append(pb.Condition(operator=pb.OPERATOR_AT_LEAST, value=args.min_quality_ratio, of_uncached=True))
    request = pb.GetBestScheduleRequest(search_id=args.search, conditions=conditions, preference=pb.PREFERENCE_FASTEST)
    answer = searches.GetBestSchedule(request, timeout=30)
    if len(answer.conditions) < len(conditions):
        sys.exit("this coordinator is too old to know conditions")
    schedule, (group,) = answer.evaluation.schedule, answer.layout.groups
    names = [c.name for c in group.components]

    def computes(step, slot):
        i = step * group.count * len(names) + slot
        return schedule.decisions[i // 4] >> 2 * (i % 4) & 3 == 0

    rows = {f"{step:03}": {str(b): {name: computes(step, b * len(names) + c) for c, name in enumerate(names)}
                           for b in range(group.count)} for step in range(schedule.steps)}
    values = ", ".join(f"{m.name} {answer.evaluation.values[m.name]:.4f}" for m in answer.evaluation.measurement.metrics)
    print(f"{answer.speedup:.2f}x faster: {values}", file=sys.stderr)
    search = searches.GetSearch(pb.GetSearchRequest(search_id=args.search), timeout=30).search
    for grid in search.spec.sampling.grids:
        if grid.steps == schedule.steps:
            told = str(grid).replace("\n", ", ")
            print(f"ECAD's format cannot say how it samples; tell whatever runs it: {told}", file=sys.stderr)
    print(json.dumps({"cache_schedule": {"name": args.search, "num_blocks": group.count, "attributes": {},
                                         "num_inference_steps": schedule.steps, "schedule": rows}}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("launch", help=launch.__doc__)
    verb.add_argument("prompts", help="a file with a prompt per line")
    verb.add_argument("--model", required=True)
    verb.add_argument("--evaluations", type=int, default=100)
    verb.add_argument("--count", type=int, default=8, help="how many prompts")
    verb.add_argument("--batch", type=int, default=4)
    verb.add_argument("--steps", type=int, nargs="+", default=[20, 12])
    verb.add_argument("--guidance", type=float, default=3.0)
    verb.set_defaults(run=launch)
    verb = verbs.add_parser("front", help=front.__doc__)
    verb.add_argument("search")
    verb.set_defaults(run=front)
    verb = verbs.add_parser("best", help=best.__doc__)
    verb.add_argument("search")
    verb.add_argument("--where", type=condition, action="append", default=[], metavar="METRIC>=VALUE")
    verb.add_argument("--min-quality-ratio", type=float, metavar="RATIO", help="share to keep of the uncached quality")
    verb.set_defaults(run=best)
    args = parser.parse_args()
    try:
        args.run(stubs.SearchServiceStub(connect(args)), args)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
