"""Context managers that are decorators too, of functions, generator functions and coroutine functions."""

import functools
import inspect
import types
from collections.abc import Callable, Generator
from contextlib import ContextDecorator
from typing import Any

from .errors import ConfigError


class Decorator(ContextDecorator):
    """A context manager that decorates a function so that its body runs inside the context.

    The body of a generator or coroutine runs after the call has returned, piece by piece: the context is entered before each
    piece and left after it, so that whoever consumes the generator is outside. Raises ConfigError for an asynchronous
    generator.
    """

    def __call__(self, function: Callable[..., Any]) -> Any:
        if inspect.isasyncgenfunction(function):
            raise ConfigError(
                f"{type(self).__name__}: cannot decorate {function.__name__}, an asynchronous generator; "
                "use `with` inside it, between its yields"
            )
        is_generator = inspect.isgeneratorfunction(function)
        if not (is_generator or inspect.iscoroutinefunction(function)):
            return super().__call__(function)

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            return (yield from self._resume(function(*args, **kwargs)))

        if is_generator:
            return generator
        awaitable = types.coroutine(generator)

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await awaitable(*args, **kwargs)

        return coroutine

    def _resume(self, generator: Any) -> Generator[Any, Any, Any]:
        """Yield what a generator or coroutine yields, each piece of which runs in a context of its own."""
        resume, value = generator.send, None
        while True:
            try:
                with self._recreate_cm():  # type: ignore[attr-defined]
                    yielded = resume(value)
            except StopIteration as end:
                return end.value
            try:
                resume, value = generator.send, (yield yielded)
            except GeneratorExit:
                with self._recreate_cm():  # type: ignore[attr-defined]
                    generator.close()
                raise
            except BaseException as error:
                resume, value = generator.throw, error
