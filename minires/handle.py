"""What registering a hook returns, on tensors and modules."""

from typing import Any, Self


class Handle:
    """What registering a hook returns; ``remove()`` unregisters it, and so does leaving it as a context."""

    def __init__(self, hooks: dict[object, Any], hook: Any) -> None:
        self.hooks = hooks
        self.key = object()  # the handle itself may be thrown away, and its id used again
        hooks[self.key] = hook

    def remove(self) -> None:
        self.hooks.pop(self.key, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
