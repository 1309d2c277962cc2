"""Random layouts and schedules."""

from __future__ import annotations

from hypothesis import strategies as st

from evocache import BlockGroup, Component, Layout

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)


@st.composite
def components(draw: st.DrawFn) -> tuple[Component, ...]:
    """Components of which some feed a later one that feeds no other."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    feeds: list[str | None] = [None] * len(names)
    residual = draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    for i in range(len(names)):
        later = [names[j] for j in range(i + 1, len(names)) if residual[j]]
        if not residual[i] and later:
            feeds[i] = draw(st.sampled_from(later))
    return tuple(Component(name, feed) for name, feed in zip(names, feeds, strict=True))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return Layout(tuple(BlockGroup(name, draw(st.integers(1, 4)), draw(components())) for name in names))


@st.composite
def raw(draw: st.DrawFn, layout: Layout, forecast: bool = True) -> tuple[int, bytes]:
    """A step count and decisions that need not be canonical."""
    steps = draw(st.integers(1, 12))
    count = (steps - 1) * len(layout)
    rest = draw(st.lists(st.integers(0, 2 if forecast else 1), min_size=count, max_size=count))
    return steps, bytes(len(layout)) + bytes(rest)


@st.composite
def layout_and_raw(draw: st.DrawFn) -> tuple[Layout, int, bytes]:
    layout = draw(layouts())
    return (layout, *draw(raw(layout)))
