"""What registering a hook returns, on tensors and modules."""

from typing import Any, Self


class Structure:
    """How often hooks have been registered or removed, and attributes of modules replaced, in this process.

    version: while it is the same, every module calls what it called before (``recorded.py``).
    """

    def __init__(self) -> None:
        self.version = 0

    def count_change(self) -> None:
        self.version += 1


structure = Structure()


class Handle:
    """What registering a hook returns; ``remove()`` unregisters it, and so does leaving it as a context."""

    def __init__(self, hooks: dict[object, Any], hook: Any) -> None:
        self.hooks = hooks
        self.key = object()  # the handle itself may be thrown away, and its id used again
        hooks[self.key] = hook
        structure.count_change()

    def remove(self) -> None:
        self.hooks.pop(self.key, None)
        structure.count_change()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
