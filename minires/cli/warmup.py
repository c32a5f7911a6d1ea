"""``minires warmup``: compile in advance what training would compile."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import Debug


def warmup(debug: Debug = False) -> int:
    """Compile all kernels that training needs, and keep them on disk. Exit code 1 if they could not be written."""
    from ..kernels.runtime import jit, kernel_cache, precompile
    from ..kernels.runtime.progress import reported_to
    from . import display

    console = display.console()
    jit.compiles.announce = False
    before = len(jit.compiles.kernels)
    began = time.perf_counter()
    tasks = list(_tasks())
    with display.bar(console, "", len(tasks)) as advance:
        for name, task in tasks:
            what = f"compiling: {name}"
            advance(0, what)
            with reported_to(lambda done, total, what=what: advance(0, f"{what}, {display.compiled(done, total)}")):
                task()
            advance()
    seconds = display.duration(time.perf_counter() - began)
    if kernel_cache.not_kept():
        console.print(
            f"compiled in {seconds}, and not all of it could be kept: the rest is compiled again by every process"
        )
        return 1
    if not precompile.complete():
        precompile.note_complete()
    kept = ", ".join(map(str, jit.FOLDERS.reading))
    kept = f"kept in {kept}" if kept else "kept nowhere, since no cache folder is writable"
    compiled = len(jit.compiles.kernels) - before
    if compiled:
        console.print(f"compiled {compiled} kernels in {seconds}, {kept}")
    else:
        console.print(f"already warm: nothing to compile (checked in {seconds}), {kept}")
    return 0


def _tasks() -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield (name, function): together the functions run every kernel with the types that training uses."""
    from .. import data, models
    from ..optim import SGD
    from ..training import Trainer

    train: Any = None
    test: Any = None

    def images() -> None:
        nonlocal train, test
        train, test = data.shapes(0, train=24, test=12)

    def step(name: str, **options: Any) -> None:
        model = models.create(name, num_classes=10, **options)
        loader = data.Loader(train, 16, augment=data.Augmentation(cutout=4), prefetch=0)
        optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
        Trainer(model, loader, data.Loader(test, 16, shuffle=False), optimizer).fit(progress=False)

    yield "drawing images", images
    yield "resnet8", lambda: step("resnet8")
    yield "resnet8, projections", lambda: step("resnet8", option="B")
    yield "preresnet20", lambda: step("preresnet20")
    yield "plain20", lambda: step("plain20")
    yield "resnet18", lambda: step("resnet18")
