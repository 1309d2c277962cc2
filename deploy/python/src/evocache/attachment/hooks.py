"""The hook of a slot, on the public `ModelHook` and `HookRegistry` of diffusers; putting it on, and taking it off so
that nothing stays behind.

A hook knows its slot and asks for what to do; it knows nothing of schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import StateManager
from torch import nn

from ..errors import AttachError

NAME = "evocache"


class Decider(Protocol):
    """Decides for a slot: runs `run()` or returns what is stored."""

    def slot(self, index: int, run: Callable[[], Any]) -> Any: ...


class SlotHook(ModelHook):  # type: ignore[misc]
    """Runs the module of a slot, or does not."""

    def __init__(self, decider: Decider, index: int, wrap: Callable[[Any], Any] | None) -> None:
        super().__init__()
        self._decider = decider
        self._index = index
        self._wrap = wrap
        self._run: Any = None
        #: The forward that the registry made of it, to see whether somebody replaced it since.
        self.installed: Any = None

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return self._decider.slot(self._index, lambda: self._forward()(*args, **kwargs))

    def _forward(self) -> Any:
        if self._wrap is None:
            return self.fn_ref.original_forward
        if self._run is None:
            self._run = self._wrap(self.fn_ref.original_forward)
        return self._run


class LaneHook(SlotHook):
    """The hook of the first slot, which also learns the name that pipelines give to a guidance pass."""

    _is_stateful = True

    def __init__(self, decider: Decider, index: int, wrap: Callable[[Any], Any] | None) -> None:
        super().__init__(decider, index, wrap)
        self.states = StateManager(object)

    @property
    def context(self) -> str | None:
        """The name of the pass, such as `uncond`, where the pipeline tells it."""
        try:
            return str(self.states.context.name)
        except ValueError:
            return None

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Called by diffusers between runs. What is stored belongs to a run, which the clock tells apart."""
        self.states.set_context(None)
        return module


def put_on(module: nn.Module, hook: SlotHook) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(module)
    if registry.get_hook(NAME) is not None:
        raise AttachError("the transformer has a schedule from another pipeline: detach it there first")
    registry.register_hook(hook, NAME)
    hook.installed = module.forward


def check_off(module: nn.Module, path: str) -> None:
    """Fails if the hook cannot be taken off without harm to what somebody put on top of it by other means."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    names, hook = list(registry.hooks), registry.get_hook(NAME)
    if hook is not None and names[-1] == NAME and module.__dict__.get("forward") is not hook.installed:
        raise AttachError(f"the forward of '{path}' was replaced after attaching: undo that first, then detach")


def take_off(module: nn.Module) -> None:
    """Removes the hook, and the traces that `HookRegistry.remove_hook` leaves."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    hook = registry.get_hook(NAME)
    if hook is None:
        return
    names = list(registry.hooks)
    above = names[names.index(NAME) + 1 :]
    original, saved = hook.fn_ref.original_forward, None
    if above:
        # `remove_hook` replaces the `forward` of the next hook, which is that hook's own if it has a `new_forward`.
        reference = registry.get_hook(above[0]).fn_ref
        if reference.original_forward is not None:
            saved = (reference, reference.forward)
    registry.remove_hook(NAME, recurse=False)
    if saved is not None:
        saved[0].forward, saved[0].original_forward = saved[1], original
    if not registry.hooks:
        if module.__dict__.get("forward") == type(module).forward.__get__(module):
            del module.forward
        del module._diffusers_hook


def forget_children(transformer: nn.Module) -> None:
    """Makes diffusers look again which modules have hooks."""
    if hasattr(transformer, "_diffusers_hook"):
        HookRegistry.check_if_exists_or_initialize(transformer).invalidate_child_registries_cache()
