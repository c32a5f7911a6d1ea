"""``minires warmup``: compile in advance what training would compile."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import Debug


def warmup(debug: Debug = False) -> None:
    """Compile all kernels that training needs, and keep them on disk.

    Training compiles kernels itself when it first needs them; after a warm-up it starts at full speed.

    `minires warmup` is needed once, before the first training; it says when there is nothing left to do

    `MINIRES_CACHE_DIR=/shared/minires minires warmup` keeps the kernels there; training with the same setting finds them.
    Only kernels of root's are used by other users; yours are used by you alone
    """
    from ..kernels.runtime import jit, precompile
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
    if not precompile.complete():
        precompile.note_complete()
    seconds = display.duration(time.perf_counter() - began)
    kept = ", ".join(map(str, jit.FOLDERS.reading))
    kept = f"kept in {kept}" if kept else "kept nowhere, since no cache folder is writable"
    compiled = len(jit.compiles.kernels) - before
    if compiled:
        console.print(f"compiled {compiled} kernels in {seconds}, {kept}")
    else:
        console.print(f"already warm: nothing to compile (checked in {seconds}), {kept}")


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
        Trainer(model, loader, data.Loader(test, 16, shuffle=False), optimizer).fit()

    yield "drawing images", images
    yield "resnet8", lambda: step("resnet8")
    yield "resnet8, projections", lambda: step("resnet8", option="B")
    yield "preresnet20", lambda: step("preresnet20")
    yield "plain20", lambda: step("plain20")
    yield "resnet18", lambda: step("resnet18")
