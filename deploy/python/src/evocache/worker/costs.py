"""The costs of a pipeline per picture: multiply-accumulates and stored bytes of every slot, and of all the rest.
Counted in one run per step count, by PyTorch's own counter; kernels of other makers count as nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from ..attachment.lane import size_of
from ..cost import CostModel
from ..formats import Grid
from .pipeline import Item, Pipeline, Setup


def count(pipeline: Pipeline, item: Item, setup: Setup, steps: int, grid: Grid | None) -> CostModel:
    """The costs of runs of this step count. Everything that no slot does is counted per picture."""
    macs, sizes = [0] * len(pipeline.layout), [0] * len(pipeline.layout)
    counter = FlopCounterMode(display=False)
    calls: list[int] = []

    def see(slot: int, run: Callable[[], Any]) -> Any:
        before = counter.get_total_flops()
        output = run()
        macs[slot] += (counter.get_total_flops() - before) // 2
        sizes[slot] = max(sizes[slot], size_of(output))
        return output

    handles = [
        transformer.register_forward_pre_hook(lambda *_: calls.append(counter.get_total_flops()))
        for transformer in pipeline.transformers
    ]
    try:
        with counter:
            pipeline.watch(item, setup, steps, grid, see)
    finally:
        for handle in handles:
            handle.remove()
    # Text encoding comes before the first call, and each pass of guidance stores outputs of its own.
    total = (counter.get_total_flops() - calls[0]) // 2
    lanes = max(1, len(calls) // steps)
    per_step = [m // steps for m in macs]
    return CostModel(per_step, [size * lanes for size in sizes], 0, total - steps * sum(per_step))
