"""`attach` on tiny pipelines: all-compute changes no bit, a schedule does what the worker's executor does and what its
own counts and memory say, and detaching leaves nothing.
"""

from __future__ import annotations

import functools
import gc
import json
import random
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook
from tiny import FOLDERS, MAKERS, Case, case, golden, z_image

import evocache
from evocache import AttachError, Grid, Schedule, ScheduleFile, attach, detach, layout_of
from evocache.attachment import transformers_of

ALL = sorted(MAKERS)


def half(this: Case, seed: int = 0, kinds: str = "CCRF") -> Schedule:
    """A random schedule for the case."""
    dice = random.Random(seed)
    return Schedule.from_fn(layout_of(this.pipe), this.steps, lambda *_: "CRF".index(dice.choice(kinds)))


def traces(this: Case) -> list[tuple[Any, ...]]:
    """Everything about the modules of a pipeline that attaching could change."""
    found = []
    for module, _ in transformers_of(this.pipe).values():
        for path, child in module.named_modules():
            hooks = (len(child._forward_hooks), len(child._forward_pre_hooks))
            found.append((path, hooks, sorted(k for k in child.__dict__ if not k.startswith("_") or "hook" in k)))
    return found


class Calls:
    """Counts what every slot's module runs, by hooks of PyTorch's on a child of it, which no hook of ours replaces."""

    def __init__(self, this: Case) -> None:
        self.count: Counter[str] = Counter()
        self.handles = []
        for name, (module, slots) in transformers_of(this.pipe).items():
            for path in slots.paths:
                slot = module.get_submodule(path)
                leaf = next((m for m in slot.modules() if isinstance(m, torch.nn.Linear)), slot)
                if leaf is not slot:
                    key = f"{name}.{path}"
                    self.handles.append(leaf.register_forward_pre_hook(lambda *_, key=key: self.count.update([key])))

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("name", ALL)
def test_all_compute_is_the_plain_pipeline_and_detach_leaves_nothing(name: str) -> None:
    this = case(name)
    plain, before = this.run(), traces(this)
    attachment = attach(this.pipe, Schedule.all_compute(layout_of(this.pipe), this.steps))
    computed = this.run()
    assert torch.equal(plain, computed)
    assert attachment.counts.computed == attachment.counts.passes * len(attachment.layout)
    assert attachment.counts.peak_bytes == 0
    detach(this.pipe)
    assert traces(this) == before
    assert torch.equal(plain, this.run())
    detach(this.pipe)


@pytest.mark.parametrize("name", ALL)
def test_a_schedule_repeats_and_runs_what_it_computes(name: str) -> None:
    this = case(name)
    plain, schedule = this.run(), half(this)
    calls = Calls(this)
    attachment = attach(this.pipe, schedule)
    first = this.run()
    counts, seen = attachment.counts, Counter(calls.count)
    assert not torch.equal(plain, first)
    assert torch.isfinite(first).all()
    assert torch.equal(first, this.run()), "a second generation"
    assert calls.count == Counter({key: 2 * n for key, n in seen.items()})
    calls.stop()
    detach(this.pipe)
    assert counts.held_bytes == 0, "what is stored is dropped after its last read"
    lanes = 2 if name in ("flux2", "wan", "wan22") else 1
    slots = schedule.slots
    if name != "wan22":
        assert counts.computed == lanes * schedule.computed
        for path in {key.partition(".")[2] for key in seen}:
            slot = transformers_of(this.pipe)["transformer"][1].paths.index(path)
            assert seen[f"transformer.{path}"] == lanes * schedule.decisions[slot::slots].count(0), path
    else:
        # The second transformer begins with nothing stored, so its first step computes.
        whole = schedule.decisions[: 3 * slots].count(0) + schedule.from_step(3).computed
        assert counts.restarts == 2
        assert counts.computed == 2 * whole


@pytest.mark.parametrize("name", FOLDERS)
def test_a_schedule_draws_what_the_workers_executor_draws(name: str) -> None:
    """The golden pictures, which `evocache-worker` is held to: computed, reused and forecast outputs of every slot."""
    this, (_, tensors) = case(name), golden(name)
    decisions = tensors["decisions"]
    layout = layout_of(this.pipe)
    assert decisions.shape == (this.steps, len(layout))
    schedule = Schedule.from_fn(layout, this.steps, lambda step, slot: int(decisions[step, slot]))
    pictures = torch.as_tensor(this.run())
    attach(this.pipe, schedule)
    cached = torch.as_tensor(this.run())
    detach(this.pipe)
    for ours, theirs in ((pictures, tensors["pictures"]), (cached, tensors["cached_pictures"])):
        turned = ours.movedim(-1, 1) if ours.shape != theirs.shape else ours
        torch.testing.assert_close(turned, theirs, atol=5e-5, rtol=0)
    assert (tensors["cached_pictures"] - tensors["pictures"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["sigma", "flux", "sd35", "dit"])
def test_the_memory_is_what_the_schedule_says(name: str) -> None:
    this = case(name)
    sizes: dict[int, int] = {}
    module, slots = transformers_of(this.pipe)["transformer"]
    handles = [
        module.get_submodule(path).register_forward_hook(
            lambda _m, _a, out, slot=slot: sizes.__setitem__(
                slot, sum(t.nbytes for t in (out if isinstance(out, tuple) else (out,)))
            )
        )
        for slot, path in enumerate(slots.paths)
    ]
    this.run()
    for handle in handles:
        handle.remove()
    cost = evocache.CostModel([0] * len(sizes), [sizes[slot] for slot in range(len(sizes))])
    for seed in range(3):
        schedule = half(this, seed)
        attachment = attach(this.pipe, schedule)
        this.run()
        # FLUX's single blocks run proj_mlp before attn, which the layout has the other way round.
        slack = max(sizes.values()) if name == "flux" else 0
        assert abs(attachment.counts.peak_bytes - schedule.peak_cache_bytes(cost)) <= slack
    detach(this.pipe)


def test_another_step_count_is_an_error_or_is_mapped() -> None:
    this = case("sigma")
    schedule = half(this, kinds="CR")
    attach(this.pipe, schedule)
    with pytest.raises(AttachError, match="has 4 steps and this run 6.*num_inference_steps=4"):
        this.run(num_inference_steps=6)
    expected = this.run()
    attach(this.pipe, schedule.at_steps(6))
    longer = this.run(num_inference_steps=6)
    attach(this.pipe, schedule, steps="resample")
    assert torch.equal(longer, this.run(num_inference_steps=6))
    assert torch.equal(expected, this.run())
    detach(this.pipe)


def test_an_exception_in_the_middle_is_no_part_of_the_next_run() -> None:
    this = case("sd3")
    attachment = attach(this.pipe, half(this))
    expected, calls = this.run(), 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyError("planted")

    handle = this.pipe.transformer.norm_out.register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match="planted"):
        this.run()
    handle.remove()
    assert attachment.counts.held_bytes > 0
    attachment.reset()
    assert attachment.counts.held_bytes == 0
    calls, handle = 0, this.pipe.transformer.norm_out.register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match="planted"):
        this.run()
    handle.remove()
    assert torch.equal(expected, this.run())
    detach(this.pipe)


def test_two_pipelines_at_once_do_not_meet() -> None:
    one, other = case("sigma"), case("sd3")
    attach(one.pipe, half(one))
    alone = one.run()
    attach(other.pipe, half(other))
    also = other.run()
    assert torch.equal(alone, one.run())
    detach(one.pipe)
    assert torch.equal(also, other.run())
    detach(other.pipe)


def test_guidance_that_ends_early_keeps_the_guided_half() -> None:
    """Z-Image stops to guide within a run; what is stored loses its other half."""
    this = z_image(cfg_truncation=0.5)
    sizes = []
    handle = this.pipe.transformer.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    plain = this.run()
    handle.remove()
    assert sorted(set(sizes)) == [2, 4], "the case must lose a half"
    layout = layout_of(this.pipe)
    attach(this.pipe, Schedule.all_compute(layout, this.steps))
    assert torch.equal(plain, this.run())
    reuse = attach(this.pipe, Schedule.from_fn(layout, this.steps, lambda step, slot: slot % 2))  # noqa: ARG005
    cached = this.run()
    assert torch.isfinite(cached).all()
    assert reuse.counts.restarts == 0
    assert reuse.counts.computed == reuse.schedule.computed if reuse.schedule else False
    detach(this.pipe)


def test_guidance_that_ends_early_with_other_texts_begins_anew() -> None:
    long, short = torch.randn(40, 16), torch.randn(3, 16)
    this = z_image(cfg_truncation=0.5, prompt_embeds=[short, short], negative_prompt_embeds=[long, long])
    attachment = attach(this.pipe, Schedule.from_fn(layout_of(this.pipe), this.steps, lambda *_: 1))
    assert torch.isfinite(this.run()).all()
    assert attachment.counts.restarts == 1
    detach(this.pipe)


def test_adapters_that_take_the_place_of_modules_are_followed() -> None:
    this = MAKERS["flux"]()
    schedule = half(this, 4, "CRR")
    attachment = attach(this.pipe, schedule)
    without, plain_calls = this.run(), attachment.counts
    config = peft.LoraConfig(r=2, target_modules=["proj_mlp", "proj_out", "to_q"], init_lora_weights=False)
    this.pipe.transformer.add_adapter(config)
    adapted = this.run()
    assert not torch.equal(without, adapted)
    assert attachment.counts == plain_calls
    detach(this.pipe)
    before = traces(this)
    attach(this.pipe, schedule)
    assert torch.equal(adapted, this.run()), "as when it is attached after"
    detach(this.pipe)
    assert traces(this) == before


def test_other_hooks_and_detaching_do_not_disturb_each_other() -> None:
    this = MAKERS["sigma"]()
    schedule = half(this)
    attach(this.pipe, schedule)
    expected, forward = this.run(), this.pipe.transformer.forward

    class Other(ModelHook):  # type: ignore[misc]
        def new_forward(self, _module: Any, *args: Any, **kwargs: Any) -> Any:
            return self.fn_ref.original_forward(*args, **kwargs)

    ff = this.pipe.transformer.transformer_blocks[0].ff
    HookRegistry.check_if_exists_or_initialize(ff).register_hook(Other(), "other")
    assert torch.equal(expected, this.run())
    detach(this.pipe)
    assert list(ff._diffusers_hook.hooks) == ["other"]
    plain = this.run()
    ff._diffusers_hook.remove_hook("other")
    assert torch.equal(plain, this.run())
    assert this.pipe.transformer.forward == forward
    attach(this.pipe, schedule)
    replaced = ff.forward
    ff.forward = functools.partial(replaced)
    with pytest.raises(AttachError, match=r"transformer_blocks\.0\.ff.*undo that first"):
        detach(this.pipe)
    ff.forward = replaced
    detach(this.pipe)


def test_offloading_of_the_transformer_and_whole_graphs() -> None:
    """`enable_model_cpu_offload` needs a GPU; it wraps the transformer in such a hook of accelerate's."""
    from accelerate.hooks import ModelHook as Offload
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    this = MAKERS["sigma"]()
    transformer, before = this.pipe.transformer, traces(this)
    attach(this.pipe, half(this))
    expected = this.run()
    add_hook_to_module(transformer, Offload())
    assert torch.equal(expected, this.run())
    detach(this.pipe)
    assert isinstance(transformer._hf_hook, Offload)
    plain = this.run()
    remove_hook_from_module(transformer)
    assert torch.equal(plain, this.run())
    transformer.__dict__.pop("forward", None)
    assert traces(this) == before
    for compiled in (transformer, transformer.transformer_blocks[0]):
        compiled.compile()
        with pytest.raises(AttachError, match="is compiled, as a whole or by blocks"):
            attach(this.pipe, half(this))
        compiled._compiled_call_impl = None


def test_bf16_and_grids() -> None:
    this = MAKERS["sigma"]()
    before = this.pipe.scheduler
    schedule = half(this, kinds="CR")
    grid = Grid(4, solver_order=1, timesteps=(950, 700, 400, 60))
    attachment = attach(this.pipe, ScheduleFile(schedule, {}, grid))
    assert this.pipe.scheduler.config.solver_order == 1
    with pytest.raises(AttachError, match=r"measured on solver order 1, timesteps 950.*settings"):
        this.run()
    on_grid = this.run(**attachment.settings)
    detach(this.pipe)
    assert this.pipe.scheduler is before
    attach(this.pipe, schedule)
    assert not torch.equal(on_grid, this.run())
    this.pipe.to(torch.bfloat16)
    assert torch.isfinite(this.run().float()).all()
    detach(this.pipe)


def test_what_cannot_be_attached_is_told_and_changes_nothing(tmp_path: Path) -> None:
    this, other = case("sigma"), case("sd3")
    before = traces(this)
    good = half(this)
    with pytest.raises(AttachError, match=r"is for layout .*joint.*but the pipeline has block\*2"):
        attach(this.pipe, half(other))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(evocache.FormatError, match="neither"):
        attach(this.pipe, tmp_path / "x.json")
    with pytest.raises(ValueError, match="either a schedule, or a coordinator"):
        attach(this.pipe)
    with pytest.raises(ValueError, match="either a schedule, or a coordinator"):
        attach(this.pipe, coordinator="127.0.0.1:1")
    with pytest.raises(ValueError, match="for a coordinator"):
        attach(this.pipe, good, strict=True)
    with pytest.raises(AttachError, match="no transformer"):
        attach(object(), good)
    with pytest.raises(AttachError, match="has no group 'blok'"):
        attach(this.pipe, good, layout="blok*2[attn1]")
    with pytest.raises(AttachError, match="has no module 'transformer_blocks.0.attn9'"):
        attach(this.pipe, good, layout="block*2[attn9]")
    with pytest.raises(evocache.CoordinatorError, match="no coordinator answers"):
        attach(this.pipe, coordinator="127.0.0.1:1", search="x", strict=True)
    with pytest.warns(RuntimeWarning, match="stays uncached: no coordinator answers"):
        attachment = attach(this.pipe, coordinator="127.0.0.1:1", search="x")
    assert attachment.schedule is None
    assert attachment.settings == {}
    detach(this.pipe)
    assert traces(this) == before


def test_an_edited_layout_leaves_modules_alone() -> None:
    this = case("sigma")
    layout = evocache.Layout.parse("block*2[attn1]")
    schedule = Schedule.from_fn(layout, this.steps, lambda *_: 1)
    attachment = attach(this.pipe, schedule, layout=layout)
    this.run()
    assert attachment.counts.computed == 2
    detach(this.pipe)


def test_files_of_every_format_are_attached(tmp_path: Path) -> None:
    this = case("sigma")
    schedule = half(this, kinds="CR")
    pictures = []
    for format in ("own", "ecad", "smoothcache"):
        schedule.save(tmp_path / format, format)
        attach(this.pipe, tmp_path / format)
        pictures.append(this.run())
        detach(this.pipe)
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])
    book = {"step_cache_book": [False, True, False, True, False], "msa_cache_book": [[False] * 2] * 5}
    dit = case("dit")
    (tmp_path / "book").write_text(json.dumps(book | {"mlp_cache_book": [[False] * 2] * 5}))
    with pytest.warns(RuntimeWarning, match="2 steps skip the whole transformer"):
        attachment = attach(dit.pipe, tmp_path / "book")
    dit.run()
    assert attachment.counts.computed == 3 * len(attachment.layout)
    detach(dit.pipe)


def test_an_attachment_does_not_keep_its_pipeline() -> None:
    this = z_image()
    attach(this.pipe, half(this))
    gone = weakref.ref(this.pipe)
    del this
    gc.collect()
    assert gone() is None


@pytest.mark.long
def test_compiled_modules_compile_once() -> None:
    this = MAKERS["sigma"]()
    schedule = half(this)
    attach(this.pipe, schedule)
    eager = this.run()
    attach(this.pipe, schedule, compile=True)
    compiled = this.run()
    frames = torch._dynamo.utils.counters["frames"]["total"]
    again = this.run()
    assert torch._dynamo.utils.counters["frames"]["total"] == frames, "no compilation after the first run"
    assert torch.equal(compiled, again)
    torch.testing.assert_close(compiled, eager, atol=1e-3, rtol=1e-3)
    detach(this.pipe)
