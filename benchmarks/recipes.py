"""The part recipe: a whole training by the recipe ``minutes20``, and the speed record it is compared with in PyTorch.

Both sides' steps are timed in turn, on the same threads; the time of a training is that of a step times the steps of its own
schedule, which is known to end at the accuracy that is stated. The recipe's steps on smaller images are timed by themselves.
Loading images and evaluating them are left out on both sides.
"""

from itertools import pairwise

from .cases import COMPILE_LAST, LAST, MINIRES, NCHW
from .steps import take_turns
from .turns import Peer, Table

RECIPE = "minutes20"
IMAGES = 50_000
BFLOAT16 = f"{LAST} bfloat16"  # autocast, and its own kernels where the CPU has instructions for it
COMPILE_BFLOAT16 = f"{COMPILE_LAST} bfloat16"
MODES = {
    NCHW: {},
    LAST: {"channels_last": True},
    COMPILE_LAST: {"channels_last": True, "compiled": True},
    BFLOAT16: {"channels_last": True, "bfloat16": True},
    COMPILE_BFLOAT16: {"channels_last": True, "compiled": True, "bfloat16": True},
}


def run(settings):
    """The seconds of each peer's steps, and the number of steps in its schedule."""
    peers = [Peer(f"{MINIRES}, {side} × {side}", told(MINIRES, side=side), settings.threads) for side in stages()]
    peers += [Peer(name, told(name), settings.threads) for name in settings.among(tuple(MODES)) if name != MINIRES]
    table = Table(peers, needed=[peer.name for peer in peers if peer.name.startswith(MINIRES)])
    with table:
        table.start()
        seconds = take_turns(table, settings)
        schedules = {name: table.peers[name].facts["schedule"] for name in seconds}
    return {"threads": settings.threads, "seconds": seconds, "schedules": schedules, "missing": table.missing}


def told(peer, **more):
    """What the worker is told."""
    return {"job": "recipe", "peer": peer, **more}


def stages():
    """{side: steps} of the recipe: how many of its steps see images of that size."""
    from minires.training import Recipe

    recipe = Recipe.named(RECIPE)
    sides, starts = zip(*recipe.sizes)
    epochs = [round(start * recipe.epochs) for start in (*starts, 1)]
    return {
        side: (end - start) * -(-IMAGES // recipe.batch_size) for side, (start, end) in zip(sides, pairwise(epochs))
    }


def work(task):
    """(step, schedule) of a peer: what ``benchmarks.worker`` runs."""
    if task["peer"] == MINIRES:
        return minires_step(task["side"], task["threads"])
    from . import airbench

    schedule = {"what": "airbench94 with Muon", "steps": airbench.STEPS, "batch": airbench.BATCH}
    return airbench.train_step(task["threads"], **MODES[task["peer"]]), schedule


def minires_step(side, threads):
    """A step of the recipe on built-in images of side × side pixels."""
    from itertools import cycle

    from minires.training import Mean, Recipe, build_trainer

    recipe = Recipe.named(RECIPE, dataset="shapes", data_dir=None, threads=threads, sizes=((side, 0.0),))
    trainer, mean = build_trainer(recipe), Mean()
    trainer.model.train()
    batches = cycle([batch for batch in trainer.train_loader if len(batch[0]) == recipe.batch_size])

    def step():
        with recipe.switches():
            trainer.train_step(*next(batches), mean)
        return mean.loss

    schedule = {"what": f"{RECIPE} ({recipe.model})", "steps": stages()[side], "batch": recipe.batch_size}
    return step, schedule


PARTS = {"recipe": run}
