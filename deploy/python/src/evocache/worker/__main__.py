"""A worker of an evocache coordinator, on diffusers.

evocache-torch-worker --coordinator 127.0.0.1:7447 --model path/to/model --name emoji
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Any

from ..connection import add_flags, check, connect, options
from ..errors import EvocacheError


def parser() -> argparse.ArgumentParser:
    from .load import DTYPES, argument

    flags = argparse.ArgumentParser(
        "evocache-torch-worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(flags)
    flags.add_argument("--model", required=True, help="a folder in diffusers format")
    flags.add_argument("--name", help="the model's name in searches; default: the folder's")
    flags.add_argument("--worker-name", help="the worker's name; default: the host's with a random end")
    flags.add_argument("--label", type=_label, action="append", default=[], metavar="KEY=VALUE")
    flags.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    flags.add_argument("--device-map", help="how diffusers spreads the pipeline, such as balanced")
    flags.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    flags.add_argument("--compile", action="store_true", help="compile the modules that the schedule computes")
    flags.add_argument("--lora", help="a LoRA file or folder")
    flags.add_argument(
        "--metric", action="append", default=[], help="psnr, clip_score=FOLDER or package.module:function"
    )
    flags.add_argument(
        "--pipeline-arg",
        type=argument,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="an argument of each call",
    )
    flags.add_argument("--until-idle", action="store_true", help="end when there is no more work")
    return flags


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return key, value


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    args = parser().parse_args(argv)
    try:
        _run(args)
    except EvocacheError as error:
        sys.exit(f"error: {error}")


def _run(args: argparse.Namespace) -> None:
    from .agent import Agent
    from .load import identity, load
    from .metrics import choose

    channel = connect(args.coordinator, **options(args))
    check(channel, args.coordinator, 30)
    pipeline = load(args)
    metrics = choose(args.metric, args.model)
    agent = Agent(channel, args.coordinator, pipeline, metrics, identity(args, pipeline), args.until_idle)

    def stop(number: int, _: Any) -> None:
        logging.getLogger("evocache.worker").info("%s: giving back what is in hand", signal.Signals(number).name)
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    agent.run()


if __name__ == "__main__":
    main()
