"""A function of many items, computed by a few threads, and what they may hold together."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from .. import kernels

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 4  # items for each thread that are begun before their turn


class Quota:
    """An amount that threads share: who asks for more than is left waits until others have given theirs back."""

    def __init__(self, amount: int) -> None:
        self.amount, self._taken, self._changed = amount, 0, threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """A context manager that holds so much of it, at most all."""
        amount = min(amount, self.amount)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + amount <= self.amount)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()


def in_threads(function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
    """Yield function(item) for each item, in order; a few are computed ahead, by as many threads as kernels have.

    Raises what the function raises, for the first item of which it does.
    """
    workers = workers or kernels.get_num_threads()
    ready: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, "minires-reader") as pool:
        try:
            for item in items:
                ready.append(pool.submit(function, item))
                if len(ready) > AHEAD * workers:
                    yield ready.popleft().result()
            while ready:
                yield ready.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
