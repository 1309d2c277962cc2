"""Loads the pipeline of a worker from its command line, and says who the worker is: a fingerprint over everything that
changes its pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import uuid
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..errors import EvocacheError
from .pipeline import Pipeline

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(args: argparse.Namespace) -> Pipeline:
    from diffusers import DiffusionPipeline

    arguments = {name: value for name, value in args.pipeline_arg}
    try:
        pipe = DiffusionPipeline.from_pretrained(
            args.model, dtype=DTYPES[args.dtype], device_map=args.device_map, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise EvocacheError(f"cannot load '{args.model}': {error}") from error
    if args.lora:
        pipe.load_lora_weights(args.lora)
    if args.device_map is None:
        pipe.to(args.device)
    return Pipeline(pipe, arguments, compile=args.compile)


def argument(text: str) -> tuple[str, Any]:
    """`name=value`; the value is JSON, or a text if it is not."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def fingerprint(args: argparse.Namespace) -> str:
    """A digest of weights, configuration and options. Workers with equal ones draw the same pictures."""
    digest = hashlib.sha256()
    options = {name: getattr(args, name) for name in ("dtype", "compile", "device_map")}
    digest.update(json.dumps([options, sorted(args.pipeline_arg)], sort_keys=True).encode())
    for root in (Path(args.model), *([Path(args.lora)] if args.lora else [])):
        files = [root] if root.is_file() else sorted(root.glob("**/*.safetensors")) + sorted(root.glob("**/*.json"))
        for file in files:
            digest.update(str(file.relative_to(root)).encode() + b"\0" if file != root else b"\0")
            with file.open("rb") as opened:
                while part := opened.read(1 << 20):
                    digest.update(part)
    return f"diffusers-{digest.hexdigest()}"


def identity(args: argparse.Namespace, pipeline: Pipeline) -> dict[str, Any]:
    """What the worker tells of itself."""
    import diffusers

    device, memory = f"{platform.machine()} cpu (torch)", 0
    if pipeline.pipe.device.type == "cuda":
        properties = torch.cuda.get_device_properties(pipeline.pipe.device)
        device, memory = properties.name, properties.total_memory
    versions = f"evocache {__version__}, diffusers {diffusers.__version__}, torch {torch.__version__}"
    return {
        "name": args.worker_name or f"{platform.node()[:40]}-torch-{uuid.uuid4().hex[:6]}",
        "device": device,
        "memory_bytes": memory,
        "software": f"{versions}, {args.dtype}{', compiled' if args.compile else ''}",
        "model": args.name or Path(args.model).resolve().name,
        "fingerprint": fingerprint(args),
        "labels": dict(args.label),
    }
