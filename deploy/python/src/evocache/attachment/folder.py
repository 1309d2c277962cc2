"""The slots of a model folder, from its configuration alone: no weights are read."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..errors import AttachError, shown
from .slots import Slots, find


def slots_of_folder(folder: str | PathLike[str]) -> Slots:
    """The slots of the transformer of a folder in diffusers format."""
    import diffusers

    path = Path(folder)
    try:
        index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
        library, name = index["transformer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttachError(f"'{path}' is no diffusers folder with a transformer: {error}") from error
    kind = getattr(diffusers, str(name), None)
    if library != "diffusers" or not isinstance(kind, type) or not issubclass(kind, diffusers.ModelMixin):
        raise AttachError(f"'{path}' has the transformer {shown(library)}.{shown(name)}, which diffusers does not have")
    model: Any = kind
    try:
        config = model.load_config(path, subfolder="transformer", local_files_only=True)
        with torch.device("meta"):
            return find(model.from_config(config))
    except (OSError, ValueError, TypeError) as error:
        raise AttachError(f"cannot read the transformer of '{path}': {error}") from error
