"""The part recipe: a whole training by the recipe ``minutes20``, and the speed record it is compared with in PyTorch.

Both sides' steps are timed in turn, on the same threads; the time of a training is that of a step times the steps of its own
schedule, which is known to end at the accuracy that is stated. Loading images and evaluating them are left out on both sides.
"""

from .cases import COMPILE_LAST, LAST, MINIRES, NCHW
from .steps import take_turns
from .turns import Peer, Table

RECIPE = "minutes20"
BFLOAT16 = f"{LAST} bfloat16"  # autocast, and its own kernels where the CPU has instructions for it
MODES = {
    NCHW: {},
    LAST: {"channels_last": True},
    COMPILE_LAST: {"channels_last": True, "compiled": True},
    BFLOAT16: {"channels_last": True, "bfloat16": True},
}


def run(settings):
    """The seconds of each peer's steps, and the number of steps in its schedule."""
    names = settings.among(tuple(MODES))
    table = Table([Peer(name, {"job": "recipe", "peer": name}, settings.threads) for name in names])
    with table:
        table.start()
        seconds = take_turns(table, settings)
        schedules = {name: table.peers[name].facts["schedule"] for name in seconds}
    return {"threads": settings.threads, "seconds": seconds, "schedules": schedules, "missing": table.missing}


def work(task):
    """(step, schedule) of a peer: what ``benchmarks.worker`` runs."""
    if task["peer"] == MINIRES:
        return minires_step(task["threads"])
    from . import airbench

    schedule = {"what": "airbench94 with Muon", "steps": airbench.STEPS, "batch": airbench.BATCH}
    return airbench.train_step(task["threads"], **MODES[task["peer"]]), schedule


def minires_step(threads):
    """A step of the recipe on a batch of the built-in images, which have the same shape as CIFAR's."""
    from itertools import cycle

    from minires.training import Mean, Recipe, build_trainer

    recipe = Recipe.named(RECIPE, dataset="shapes", data_dir=None, threads=threads)
    trainer, mean = build_trainer(recipe), Mean()
    trainer.model.train()
    batches = cycle([batch for batch in trainer.train_loader if len(batch[0]) == recipe.batch_size])

    def step():
        with recipe.switches():
            trainer.train_step(*next(batches), mean)
        return mean.loss

    steps = recipe.epochs * -(-50_000 // recipe.batch_size)
    return step, {"what": f"{RECIPE} ({recipe.model})", "steps": steps, "batch": recipe.batch_size}


PARTS = {"recipe": run}
