"""The cacheable modules of a model: block groups, their components, and the slots.

The same rules and limits as the Rust side's `Layout`. Knows nothing of any model, of files and of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import LayoutError, shown

MAX_SLOTS = 4096
MAX_COMPONENTS = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")


@dataclass(frozen=True)
class Component:
    """One cacheable module of a block. `feeds` names the later component of the block that alone reads its output;
    without it the output goes to the residual stream."""

    name: str
    feeds: str | None = None

    def __str__(self) -> str:
        return self.name if self.feeds is None else f"{self.name}>{self.feeds}"

    @staticmethod
    def parse(text: str) -> Component:
        """Reads `name` or `name>consumer`."""
        name, arrow, consumer = text.partition(">")
        return Component(name, consumer if arrow else None)


@dataclass(frozen=True)
class BlockGroup:
    """A group of identical blocks; components are in the order in which they run."""

    name: str
    count: int
    components: tuple[Component, ...]

    def __str__(self) -> str:
        return f"{self.name}*{self.count}[{','.join(map(str, self.components))}]"


@dataclass(frozen=True)
class Slot:
    """One component of one block: indices of the group, of the block within it, and of the component within that."""

    group: int
    block: int
    component: int


@dataclass(frozen=True)
class Layout:
    """The slots of a model in the order in which they run: group, block, component. Equal layouts have equal groups.

    `str` gives the whole layout on one line, such as `block*28[attn1,attn2,ff]`; schedule ids are digests over it.
    """

    groups: tuple[BlockGroup, ...]
    slots: tuple[Slot, ...] = field(init=False, repr=False, compare=False)
    consumers: tuple[int | None, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.groups)
        slots: list[Slot] = []
        consumers: list[int | None] = []
        for g, group in enumerate(self.groups):
            index = {component.name: c for c, component in enumerate(group.components)}
            feeds = [None if c.feeds is None else index[c.feeds] for c in group.components]
            for block in range(group.count):
                first = len(slots)
                slots.extend(Slot(g, block, c) for c in range(len(group.components)))
                consumers.extend(None if c is None else first + c for c in feeds)
        object.__setattr__(self, "slots", tuple(slots))
        object.__setattr__(self, "consumers", tuple(consumers))

    def __str__(self) -> str:
        return ";".join(map(str, self.groups))

    def __len__(self) -> int:
        return len(self.slots)

    def slot_name(self, index: int) -> str:
        """`group.block.component`, such as `block.3.attn1`."""
        slot = self.slots[index]
        group = self.groups[slot.group]
        return f"{group.name}.{slot.block}.{group.components[slot.component].name}"

    @staticmethod
    def of(*groups: tuple[str, int, Iterable[str]]) -> Layout:
        """A layout from names: `Layout.of(("single", 38, ["attn>proj_out", "proj_mlp>proj_out", "proj_out"]))`."""
        return Layout(
            tuple(BlockGroup(name, count, tuple(Component.parse(c) for c in parts)) for name, count, parts in groups)
        )

    @staticmethod
    def parse(text: str) -> Layout:
        """Reads what `str` of a layout gives."""
        groups = []
        for part in text.strip().split(";"):
            match = re.fullmatch(r"([^*\[\]]+)\*([0-9]{1,9})\[([^\[\]]*)\]", part)
            if match is None:
                raise LayoutError(f"'{shown(part)}' is not a block group; write it as block*28[attn1,attn2,ff]")
            groups.append((match[1], int(match[2]), [c for c in match[3].split(",") if c]))
        return Layout.of(*groups)

    @staticmethod
    def pixart(blocks: int) -> Layout:
        """PixArt: `block` × `attn1, attn2, ff`."""
        return Layout.of(("block", blocks, ("attn1", "attn2", "ff")))

    @staticmethod
    def flux(doubles: int, singles: int) -> Layout:
        """FLUX: `double` × `attn, ff, ff_context`, then `single` × `attn, proj_mlp, proj_out`, where only `proj_out`
        reads the other two."""
        return Layout.of(
            ("double", doubles, ("attn", "ff", "ff_context")),
            ("single", singles, ("attn>proj_out", "proj_mlp>proj_out", "proj_out")),
        )


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise LayoutError(
            f"layout name '{shown(name)}' must be 1 to 32 characters of a-z, 0-9 and '_', starting with a letter"
        )


def _check(groups: tuple[BlockGroup, ...]) -> None:
    if not groups:
        raise LayoutError("layout has no slots: no block group")
    components = max(sum(len(group.components) for group in groups), len(groups))
    if components > MAX_COMPONENTS:
        raise LayoutError(
            f"layout has {components} components over all block groups, at most {MAX_COMPONENTS} are supported"
        )
    names: set[str] = set()
    total = 0
    for group in groups:
        _check_name(group.name)
        if group.name in names:
            raise LayoutError(f"layout name '{group.name}' is used twice")
        names.add(group.name)
        if group.count < 1 or not group.components:
            raise LayoutError(f"layout has no slots: group '{group.name}' is empty")
        _check_components(group.components)
        total += group.count * len(group.components)
        if total > MAX_SLOTS:
            raise LayoutError(f"layout has {total} slots, at most {MAX_SLOTS} are supported")


def _check_components(components: tuple[Component, ...]) -> None:
    for c, component in enumerate(components):
        _check_name(component.name)
        if any(other.name == component.name for other in components[:c]):
            raise LayoutError(f"layout name '{component.name}' is used twice")
        later = components[c + 1 :]
        if component.feeds is not None and not any(o.name == component.feeds and o.feeds is None for o in later):
            raise LayoutError(
                f"component '{component.name}' feeds '{shown(component.feeds)}', which is not a later component of its "
                "block that feeds no other"
            )
