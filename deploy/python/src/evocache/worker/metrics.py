"""Quality metrics: PSNR to the uncached pictures, the CLIP score of a CLIP folder, and those of your own.

One of your own is a function `f(pictures, prompts) -> values`, named as `--metric package.module:function`: pictures
are `[n, 3, h, w]` (videos `[n, frames, 3, h, w]`) in 0 to 1 on the CPU, the values one number for each. Its attributes
`name`, `direction` ("maximize", the default, or "minimize") and `unit` are declared to the coordinator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import EvocacheError

Score = Callable[[torch.Tensor, Sequence[str], torch.Tensor], Sequence[float]]


@dataclass(frozen=True)
class Metric:
    """`score(pictures, prompts, uncached)` gives a value for each picture."""

    name: str
    score: Score
    maximize: bool = True
    unit: str = "1"
    description: str = ""

    def values(self, pictures: torch.Tensor, prompts: Sequence[str], uncached: torch.Tensor) -> list[float]:
        found = [float(value) for value in self.score(pictures, prompts, uncached)]
        if len(found) != len(prompts):
            raise EvocacheError(f"metric '{self.name}' gave {len(found)} values for {len(prompts)} pictures")
        wrong = next((i for i, value in enumerate(found) if not math.isfinite(value)), None)
        if wrong is not None:
            raise EvocacheError(f"metric '{self.name}' is {found[wrong]} for picture {wrong}")
        return found


PSNR_CAP = 100.0


def _psnr(pictures: torch.Tensor, _: Sequence[str], uncached: torch.Tensor) -> list[float]:
    error = ((pictures - uncached) ** 2).flatten(1).mean(dim=1)
    return [PSNR_CAP if e < 1e-10 else -10 * math.log10(e) if math.isfinite(e) else math.nan for e in error.tolist()]


PSNR = Metric("psnr", _psnr, True, "dB", "to the uncached picture")


def clip_score(folder: str | Path, device: str = "cpu") -> Metric:
    """The cosine of the CLIP embeddings of picture and prompt, by a folder in the layout of transformers."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval().to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        images = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EvocacheError(f"'{folder}' is no CLIP folder: {error}") from error
    length = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def score(pictures: torch.Tensor, prompts: Sequence[str], _: torch.Tensor) -> list[float]:
        if pictures.dim() == 5:
            pictures = pictures[:, pictures.shape[1] // 2]
        shown = [(picture.movedim(0, -1) * 255).round().byte().numpy() for picture in pictures]
        pixels = images(images=shown, return_tensors="pt")["pixel_values"].to(device)
        tokens = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
        seen = _unit(model.get_image_features(pixel_values=pixels))
        said = _unit(model.get_text_features(**tokens))
        return [float(cosine) for cosine in (seen * said).sum(-1)]

    return Metric("clip_score", score, True, "1", "cosine of the CLIP embeddings of picture and prompt")


def _unit(features: Any) -> torch.Tensor:
    # Newer transformers wrap the features in an output.
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def own(path: str) -> Metric:
    """A function of yours, `package.module:function`."""
    module, colon, name = path.partition(":")
    if not colon:
        raise EvocacheError(f"'{path}' is not package.module:function")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise EvocacheError(f"metric '{path}' cannot be imported: {error}") from error
    direction = getattr(function, "direction", "maximize")
    if direction not in ("maximize", "minimize"):
        raise EvocacheError(f"metric '{path}' has direction '{direction}'; it must be maximize or minimize")
    summary = (function.__doc__ or "").strip().partition("\n")[0]
    return Metric(
        getattr(function, "name", getattr(function, "__name__", name)),
        lambda pictures, prompts, _: list(function(pictures, prompts)),
        direction == "maximize",
        getattr(function, "unit", "1"),
        summary,
    )


def choose(names: Sequence[str], model: str | Path) -> list[Metric]:
    """Metrics from the command line: `psnr`, `clip_score`, `clip_score=FOLDER`, or `package.module:function`. Without
    any: PSNR, and the CLIP score if the model's folder has a `clip`."""
    clip = Path(model) / "clip"
    if not names:
        return [PSNR] if not clip.is_dir() else [clip_score(clip), PSNR]
    found = []
    for name in names:
        kind, _, folder = name.partition("=")
        if kind == "psnr" and not folder:
            found.append(PSNR)
        elif kind == "clip_score":
            found.append(clip_score(folder or clip))
        elif folder:
            raise EvocacheError(f"'{name}' is not a metric; write psnr, clip_score=FOLDER or package.module:function")
        else:
            found.append(own(name))
    twice = next((m.name for i, m in enumerate(found) if any(o.name == m.name for o in found[:i])), None)
    if twice is not None:
        raise EvocacheError(f"metric '{twice}' is given twice")
    return found
