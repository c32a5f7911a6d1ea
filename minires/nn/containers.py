"""Modules that hold modules."""

from collections.abc import Iterable, Iterator
from typing import Any, Self, overload

from ..tensor import Tensor
from .module import Module


class ModuleList(Module):
    """A list of modules, named 0, 1, 2 … It has no forward: index it, or iterate over it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Append a module; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Append several modules; returns self."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return type(self)(self.children()[i])
        return self.children()[i]

    def __setitem__(self, i: int, module: Module) -> None:
        names = [name for name, _ in self.named_children()]
        self.add_module(names[i], module)


class Sequential(ModuleList):
    """Modules in a chain: y = fₙ(… f₂(f₁(x))). They are named 0, 1, 2 …, or by the keys of a dict.

    >>> from minires.nn import Identity
    >>> Sequential({"stem": Identity(), "head": Identity()})
    Sequential(
      (stem): Identity()
      (head): Identity()
    )
    """

    recordable = True

    @overload
    def __init__(self, *modules: Module) -> None: ...

    @overload
    def __init__(self, modules: dict[str, Module], /) -> None: ...

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], dict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return Sequential(dict(self.named_children()[i]))
        return super().__getitem__(i)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x
