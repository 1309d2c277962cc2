"""Ask an evocache coordinator from Python: launch a search, watch it, take the best schedule.

pip install ./deploy/python
python client.py --coordinator 127.0.0.1:7447 launch --model emoji --evaluations 20 prompts.txt
python client.py best SEARCH --where 'psnr>=30' --min-quality-ratio 0.98 --out best.json
python client.py --coordinator https://coordinator.lan:7447 --ca ca.pem --token-file ci.token front SEARCH
"""

import argparse
import sys
from pathlib import Path

from evocache import Client, EvocacheError
from evocache.connection import add_flags, options
from evocache.v1 import search_service_pb2 as pb


def launch(client, args):
    """Creates a search for latency against PSNR and follows it to its end."""
    prompts = [line.strip() for line in Path(args.prompts).read_text().splitlines() if line.strip()][: args.count]
    search = client.launch(
        model=args.model,
        prompts=prompts,
        steps=args.steps,
        guidance_scale=args.guidance,
        evaluations=args.evaluations,
        batch=args.batch,
    )
    print(search, flush=True)
    for event in client.watch(search):
        print(
            f"{pb.SearchState.Name(event.state)}: {event.progress.evaluations} evaluations, front of "
            f"{event.progress.front_size}, hypervolume {event.progress.hypervolume:.4f}",
            file=sys.stderr,
            flush=True,
        )


def front(client, args):
    """Prints the front, a line per schedule."""
    for e in client.front(args.search):
        # Estimated by all measurements; e.values has what this one measured.
        print(
            f"candidate {e.candidate}: {1 / e.latency_ratio.value:.2f}x faster, psnr {e.values['psnr']:.1f} dB, "
            f"{e.values['cache_bytes'] / 1024:.0f} KiB, {e.schedule.steps} steps, by {e.worker_name}"
        )


def best(client, args):
    """Writes the fastest schedule that has all of this."""
    found = client.best(args.search, where=args.where, min_quality_ratio=args.min_quality_ratio)
    print(f"{found.speedup:.2f}x faster, psnr {found.values['psnr']:.1f} dB: {found.schedule}")
    found.file.save(args.out)


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
    verb.add_argument("--where", action="append", default=[], metavar="METRIC>=VALUE")
    verb.add_argument("--min-quality-ratio", type=float, metavar="RATIO", help="share to keep of the uncached quality")
    verb.add_argument("--out", required=True)
    verb.set_defaults(run=best)
    args = parser.parse_args()
    try:
        with Client(args.coordinator, **options(args)) as client:
            args.run(client, args)
    except (EvocacheError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
