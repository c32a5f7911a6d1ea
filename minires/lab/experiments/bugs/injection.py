"""Mistakes, put in place of the library's functions for the length of a ``with`` block and for one thread.

While at least one block is open, each function that a mistake changes is replaced by one that looks whether the calling thread
has injected it, and otherwise calls the original. When the last block ends, normally or by an error, the original is back.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....errors import ConfigError
from ....recorded import recording


class Patch(NamedTuple):
    """A function of the library and what a mistake makes of it.

    owner: the class or module that has it; name: of the attribute; replacement(original, *arguments) returns what is returned.
    """

    owner: Any
    name: str
    replacement: Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A mistake that somebody may make in writing a network's backward pass, or in both passes.

    name: for ``inject``; where: the part of the library that it is in; summary: what is wrong, in a line; lesson: what there is
    to learn from it; fused: how it runs where operations are fused: "fused" (the fused kernels compute the wrong gradient),
    "array" (the fused step's gradient is computed as an array of its own), or "same" (the operation is never fused);
    both_passes: whether forward and backward agree, so that no comparison with finite differences can find it.
    """

    name: str
    where: str
    summary: str
    lesson: str
    fused: str
    patches: tuple[Patch, ...]
    both_passes: bool = False


class _Injected:
    """A mistake that is in place in a thread. busy: whether one of its functions is running, in which the originals count."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake, self.busy = mistake, False
        self.replacements = {(id(p.owner), p.name): p.replacement for p in mistake.patches}


class _Threads(threading.local):
    """injected: the mistakes of the thread, one at most. The list is the thread's own, whoever ends the block."""

    def __init__(self) -> None:
        self.injected: list[_Injected] = []


class _Point:
    """A replaced function: the original, and the number of blocks that need the replacement."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.blocks = owner, name, 0
        self.original, self.is_own = getattr(owner, name), name in vars(owner)
        self.dispatch = _dispatch(self.original, (id(owner), name))
        setattr(owner, name, self.dispatch)

    def restore(self) -> None:
        if vars(self.owner).get(self.name) is not self.dispatch:  # somebody else has replaced it since
            return
        if self.is_own:
            setattr(self.owner, self.name, self.original)
        else:
            delattr(self.owner, self.name)


_threads = _Threads()
_points: dict[tuple[int, str], _Point] = {}
_lock = threading.Lock()


def _dispatch(original: Callable[..., Any], key: tuple[int, str]) -> Callable[..., Any]:
    """A function that calls the replacement of the thread's mistake, or the original."""

    @functools.wraps(original)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        injected = _threads.injected[-1] if _threads.injected else None
        if injected is None or injected.busy or key not in injected.replacements:
            return original(*args, **kwargs)
        injected.busy = True
        try:
            return injected.replacements[key](original, *args, **kwargs)
        finally:
            injected.busy = False

    return dispatch


@contextmanager
def _installed(patch: Patch) -> Iterator[None]:
    key = id(patch.owner), patch.name
    with _lock:
        if key not in _points:
            _points[key] = _Point(patch.owner, patch.name)
        _points[key].blocks += 1
    try:
        yield
    finally:
        with _lock:
            _points[key].blocks -= 1
            if not _points[key].blocks:
                _points.pop(key).restore()


@contextmanager
def injected(mistake: Mistake) -> Iterator[Mistake]:
    """Inside the block, this thread's operations have the mistake. Raises ConfigError inside another such block.

    Other threads are not affected, those started inside neither. What counts is where ``backward()`` runs. Inside, no step is
    recorded or run from a recording (``minires.recording``), which would carry the mistake out of the block or not have it.
    """
    mine = _threads.injected
    if mine:
        raise ConfigError(
            f"the mistake {mine[-1].mistake.name!r} is in place already: two at once would hide each other, so end its block "
            f"before {mistake.name!r} begins"
        )
    entry = _Injected(mistake)
    with ExitStack() as stack:
        stack.enter_context(recording(False))
        for patch in mistake.patches:
            stack.enter_context(_installed(patch))
        mine.append(entry)
        try:
            yield mistake
        finally:
            mine.remove(entry)
