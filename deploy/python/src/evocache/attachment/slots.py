"""Which modules of a diffusers transformer are the slots of a layout: a table for known classes, with the names of the
Rust worker for its families, and discovery for all others.

Discovery takes the lists of blocks that are direct children of the transformer, and in each block the children that are
an attention or a feed-forward network, which is what blocks add to their residual stream. Knows nothing of schedules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from ..errors import AttachError, LayoutError
from ..layout import BlockGroup, Component, Layout


@dataclass(frozen=True)
class Slots:
    """A layout, and for each slot the path of its module below the transformer. `known`: from the table."""

    layout: Layout
    paths: tuple[str, ...]
    known: bool


@dataclass(frozen=True)
class Blocks:
    """A group of equal blocks: a stretch of a list of modules."""

    name: str
    attribute: str
    first: int
    count: int
    components: tuple[str, ...]


_SINGLE = ("attn>proj_out", "proj_mlp>proj_out", "proj_out")
_JOINT = ("attn", "ff", "ff_context")
#: Class of the transformer → group name, list of blocks, components.
FAMILIES: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "PixArtTransformer2DModel": (("block", "transformer_blocks", ("attn1", "attn2", "ff")),),
    "DiTTransformer2DModel": (("block", "transformer_blocks", ("attn1", "ff")),),
    "FluxTransformer2DModel": (
        ("double", "transformer_blocks", _JOINT),
        ("single", "single_transformer_blocks", _SINGLE),
    ),
    "Flux2Transformer2DModel": (
        ("double", "transformer_blocks", _JOINT),
        ("single", "single_transformer_blocks", ("attn",)),
    ),
    "QwenImageTransformer2DModel": (("block", "transformer_blocks", ("attn", "img_mlp", "txt_mlp")),),
    "ZImageTransformer2DModel": tuple(
        (name, name, ("attention", "feed_forward")) for name in ("noise_refiner", "context_refiner", "layers")
    ),
    "Lumina2Transformer2DModel": tuple(
        (name, name, ("attn", "feed_forward")) for name in ("noise_refiner", "context_refiner", "layers")
    ),
    "WanTransformer3DModel": (("block", "blocks", ("attn1", "attn2", "ffn")),),
    "LTXVideoTransformer3DModel": (("block", "transformer_blocks", ("attn1", "attn2", "ff")),),
    "CogVideoXTransformer3DModel": (("block", "transformer_blocks", ("attn1", "ff")),),
}


def find(transformer: nn.Module, wanted: Layout | None = None) -> Slots:
    """The slots of a transformer. `wanted` is a layout that somebody edited: the groups that it names, with the
    children that it names, in place of those that were found."""
    name = type(transformer).__name__
    if name == "SD3Transformer2DModel":
        blocks, known = _sd3(transformer), True
    elif name in FAMILIES:
        lists = ((group, path, parts, _list(transformer, path)) for group, path, parts in FAMILIES[name])
        blocks, known = [Blocks(group, path, 0, n, parts) for group, path, parts, n in lists if n], True
    else:
        blocks, known = discover(transformer), False
    if wanted is not None:
        blocks = _edited(transformer, blocks, wanted)
    if not blocks:
        raise AttachError(
            f"{name} has no list of blocks with attention or feed-forward networks as children; its modules are "
            f"{', '.join(child for child, _ in transformer.named_children()) or 'none'}"
        )
    return _slots(transformer, blocks, known)


def _slots(transformer: nn.Module, blocks: list[Blocks], known: bool) -> Slots:
    groups, paths = [], []
    for group in blocks:
        components = tuple(Component.parse(part) for part in group.components)
        groups.append(BlockGroup(group.name, group.count, components))
        paths += [
            f"{group.attribute}.{group.first + block}.{component.name}"
            for block in range(group.count)
            for component in components
        ]
    try:
        layout = Layout(tuple(groups))
    except LayoutError as error:
        raise AttachError(f"{type(transformer).__name__}: {error}") from error
    for path in paths:
        module_at(transformer, path)
    return Slots(layout, tuple(paths), known)


def module_at(transformer: nn.Module, path: str) -> nn.Module:
    """The module of a slot."""
    try:
        return transformer.get_submodule(path)
    except AttributeError as error:
        raise AttachError(f"{type(transformer).__name__} has no module '{path}', which its layout needs") from error


def _list(transformer: nn.Module, attribute: str) -> int:
    blocks = getattr(transformer, attribute, None)
    return len(blocks) if isinstance(blocks, nn.ModuleList) else 0


def _sd3(transformer: nn.Module) -> list[Blocks]:
    """Blocks with a second attention, those without, and the last one, whose text stream ends."""
    blocks = getattr(transformer, "transformer_blocks", ())
    kinds = []
    for i, block in enumerate(blocks):
        dual = getattr(block, "attn2", None) is not None
        last = getattr(block, "ff_context", None) is None
        parts = ("attn", *(["attn2"] if dual else []), "ff", *([] if last else ["ff_context"]))
        kinds.append((i, "last" if last else "dual" if dual else "joint", parts))
    found = []
    for (name, parts), run in groupby(kinds, key=lambda kind: kind[1:]):
        indices = [i for i, _, _ in run]
        found.append(Blocks(name, "transformer_blocks", indices[0], len(indices), parts))
    return found


_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_FEED_FORWARD = re.compile(r"feed_?forward|^(\w+_)?(mlp|ffn?)(_\w+)?$|swiglu|glumb", re.IGNORECASE)
_NOT = re.compile(r"norm|mod|embed|proj|rope|gate|act|drop|(^|_)ln(_|$)", re.IGNORECASE)


def _is_component(name: str, child: nn.Module) -> bool:
    if not any(True for _ in child.parameters()) or isinstance(child, (nn.Linear, nn.ModuleList)):
        return False
    if _NOT.search(name):
        return False
    kind = type(child).__name__
    by_class = _ATTENTION.search(kind) or _FEED_FORWARD.search(kind) or hasattr(child, "to_q")
    return bool(by_class or _ATTENTION.search(name) or _FEED_FORWARD.search(name))


def components_of(block: nn.Module) -> tuple[str, ...]:
    """The children of a block whose output it adds to its residual stream, by their kinds and names, in the order in
    which they are registered. A block that runs attention and the first half of a feed-forward network side by side, as
    FLUX's single blocks, has the three components of those."""
    children = dict(block.named_children())
    parallel = [children.get(name) for name in ("attn", "proj_mlp", "proj_out")]
    if all(part is not None for part in parallel):
        return _SINGLE
    return tuple(name for name, child in children.items() if _is_component(name, child))


def discover(transformer: nn.Module) -> list[Blocks]:
    """The groups of blocks of an unknown class."""
    lists = [(name, child) for name, child in transformer.named_children() if isinstance(child, nn.ModuleList)]
    has_singles = any(name.startswith("single") for name, _ in lists)
    found: list[Blocks] = []
    for attribute, blocks in lists:
        kinds = [(i, type(block).__name__, components_of(block)) for i, block in enumerate(blocks)]
        for (_, parts), run in groupby(kinds, key=lambda kind: kind[1:]):
            indices = [i for i, _, _ in run]
            if parts:
                name = _unused(_group_name(attribute, has_singles), (group.name for group in found))
                found.append(Blocks(name, attribute, indices[0], len(indices), parts))
    return found


def _group_name(attribute: str, has_singles: bool) -> str:
    if attribute.startswith("single"):
        return "single"
    if attribute in (
        "transformer_blocks",
        "blocks",
        "double_stream_blocks",
        "double_blocks",
        "joint_transformer_blocks",
    ):
        return "double" if has_singles else "block"
    return re.sub(r"[^a-z0-9_]", "_", attribute.lower()).lstrip("_0123456789")[:28] or "block"


def _unused(name: str, used: Iterable[str]) -> str:
    taken = set(used)
    number = 2
    while (other := name if number == 2 and name not in taken else f"{name}_{number}") in taken:
        number += 1
    return other


def _edited(transformer: nn.Module, blocks: list[Blocks], wanted: Layout) -> list[Blocks]:
    by_name = {group.name: group for group in blocks}
    chosen = []
    for group in wanted.groups:
        mine = by_name.get(group.name)
        if mine is None or mine.count != group.count:
            found = ", ".join(f"{g.name}*{g.count}" for g in blocks)
            raise AttachError(
                f"{type(transformer).__name__} has no group '{group.name}' of {group.count} blocks; it has {found}"
            )
        parts = tuple(str(component) for component in group.components)
        chosen.append(Blocks(mine.name, mine.attribute, mine.first, mine.count, parts))
    return chosen
