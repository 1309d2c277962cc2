"""Layouts of transformer classes: discovery agrees with the table, finds every class that repeats blocks, and refuses
what it cannot tell. Models are made without memory."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import diffusers
import pytest
import torch
from conftest import ROOT

from evocache import AttachError
from evocache.attachment.slots import FAMILIES, _slots, discover, find


def classes() -> dict[str, type]:
    """The transformers of the installed diffusers that say which of their blocks repeat."""
    from diffusers.models import transformers

    found = {name: getattr(transformers, name) for name in dir(transformers) if name.endswith("Model")}
    return {
        name: kind for name, kind in found.items() if inspect.isclass(kind) and getattr(kind, "_repeated_blocks", None)
    }


def empty(kind: type) -> torch.nn.Module:
    """A model of the class without memory, with few layers where it lets one say so."""
    parameters = inspect.signature(kind).parameters.values()
    few = {
        p.name: 3 for p in parameters if re.search(r"(^|_)layers$", p.name) and type(p.default) is int and p.default > 3
    }
    with torch.device("meta"):
        try:
            return kind(**few)  # type: ignore[no-any-return]
        except Exception:  # Some want their layers to agree with other arguments.
            return kind()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_discovery_agrees_with_the_table(name: str) -> None:
    kind = getattr(diffusers, name)
    model = empty(kind) if name != "PixArtTransformer2DModel" else make_pixart()
    known = find(model)
    found = _slots(model, discover(model), False)
    assert known.known
    assert (found.layout, found.paths) == (known.layout, known.paths)


def make_pixart() -> torch.nn.Module:
    with torch.device("meta"):
        return diffusers.PixArtTransformer2DModel(sample_size=32)  # type: ignore[no-any-return]


def test_every_class_that_repeats_blocks_has_a_layout() -> None:
    told, failed = [], []
    for name, kind in sorted(classes().items()):
        try:
            model = empty(kind)
        except Exception as error:  # Some have no defaults.
            failed.append(f"{name}: not made: {type(error).__name__}")
            continue
        try:
            told.append(f"{name}: {find(model).layout}")
        except AttachError as error:
            failed.append(f"{name}: {error}")
    print("\n".join([*told, "", *failed]))
    assert len(told) >= 20
    assert not [line for line in failed if "not made" not in line]


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(AttachError, match="Sequential has no list of blocks.*its modules are 0"):
        find(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_folder_tells_its_layout() -> None:
    def layout(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "evocache", "layout", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for model, expected in [
        ("worker/models/emoji", "block*12[attn1,attn2,ff]"),
        (
            "worker/tests/fixtures/flux",
            "double*2[attn,ff,ff_context];single*2[attn>proj_out,proj_mlp>proj_out,proj_out]",
        ),
        ("worker/tests/fixtures/sd35", "dual*1[attn,attn2,ff,ff_context];joint*1[attn,ff,ff_context];last*1[attn,ff]"),
    ]:
        told = layout(str(ROOT / model))
        assert told.stdout.strip() == expected, told.stderr
    assert "no diffusers folder" in layout(str(ROOT)).stderr
