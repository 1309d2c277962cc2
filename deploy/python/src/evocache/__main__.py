"""Schedules and layouts on the command line.

python -m evocache show best.json
python -m evocache convert best.json --format smoothcache --out best.smoothcache.json
python -m evocache layout path/to/model
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import formats
from .errors import EvocacheError
from .layout import Layout


def _file(args: argparse.Namespace) -> formats.ScheduleFile:
    return formats.read_file(args.schedule, Layout.parse(args.layout) if args.layout else None)


def show(args: argparse.Namespace) -> None:
    """Tells a schedule's id, layout and decisions."""
    file = _file(args)
    schedule = file.schedule
    print(f"id        {schedule.id}")
    print(f"layout    {schedule.layout} = {schedule.slots} slots")
    print(f"steps     {schedule.steps}, {schedule.computed} of {len(schedule.decisions)} computed")
    if file.grid is not None:
        print(f"grid      {file.grid}")
    for name, value in file.made_with.items():
        print(f"made with {name} {value}")
    for lost in file.lost:
        print(f"lost      {lost}")
    width = max(len(name) for name, _ in schedule.rows())
    for name, row in schedule.rows():
        print(f"{name:{width}}  {row}")


def convert(args: argparse.Namespace) -> None:
    """Writes a schedule in another format."""
    file = _file(args)
    for lost in file.lost:
        print(f"note: {lost}", file=sys.stderr)
    if args.format == "own":
        text = file.schedule.dumps(about=file.about)
    else:
        text = file.schedule.dumps(args.format, name=Path(args.schedule).stem)
        if file.grid is not None:
            print(f"note: the format cannot say how the schedule samples: {file.grid}", file=sys.stderr)
    if args.out:
        Path(args.out).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def layout(args: argparse.Namespace) -> None:
    """Prints the layout of a model folder's transformer, from its configuration alone."""
    from .attachment.folder import slots_of_folder

    found = slots_of_folder(args.model)
    print(found.layout)
    if not found.known:
        print("note: discovered, not from the table of known classes; check it before you rely on it", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(
        "evocache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = flags.add_subparsers(required=True)
    for act in (show, convert):
        verb = verbs.add_parser(act.__name__, help=act.__doc__)
        verb.add_argument("schedule", help="a schedule file in any known format")
        verb.add_argument(
            "--layout", help="the model's layout, for formats that do not say it: block*28[attn1,attn2,ff]"
        )
        verb.set_defaults(act=act)
        if act is convert:
            verb.add_argument("--format", choices=formats.FORMATS, required=True)
            verb.add_argument("--out", help="a file to write; default: standard output")
    verb = verbs.add_parser("layout", help=layout.__doc__)
    verb.add_argument("model", help="a folder in diffusers format")
    verb.set_defaults(act=layout)
    args = flags.parse_args(argv)
    try:
        args.act(args)
        sys.stdout.flush()
    except EvocacheError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        # Whoever reads has enough, as `head` does. What is left in the buffer must go somewhere at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
