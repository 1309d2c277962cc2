"""The errors of the package. Every text names the thing that is wrong and, where there is one, the way out."""

from __future__ import annotations


class EvocacheError(Exception):
    """The base of all errors that this package raises on purpose."""


class LayoutError(EvocacheError, ValueError):
    """A layout that cannot be, or a model whose blocks cannot be told."""


class ScheduleError(EvocacheError, ValueError):
    """Something that is not a schedule of a layout."""


class FormatError(EvocacheError, ValueError):
    """A text that is not a schedule of the format, or a schedule that the format cannot express."""


class AttachError(EvocacheError, RuntimeError):
    """A schedule that cannot be attached to this pipeline, or a run that it does not fit."""


class CoordinatorError(EvocacheError, RuntimeError):
    """A call to a coordinator that failed. `reason` is the reason of `proto/README.md`, empty if it gave none."""

    def __init__(self, message: str, code: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def shown(text: object, limit: int = 80) -> str:
    """A text from outside, on one line and not too long for a message."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"
