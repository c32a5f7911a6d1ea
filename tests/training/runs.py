"""Small runs that are begun, stopped and gone on with."""

import json
from pathlib import Path

from minires.training import Recipe, Recorder, Resumed, RunFolder, build_trainer, read_metrics

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, val=8)  # 3 steps an epoch
TIMES = {"seconds": 0, "images_per_second": 0}


def begin(path, recipe=RECIPE, *callbacks, **more):
    trainer = build_trainer(recipe)
    with RunFolder.create(recipe, path) as folder:
        trainer.callbacks = (Recorder(folder, recipe, **more), *callbacks)
        trainer.fit()
    return trainer


def go_on(path, *callbacks, settings=None, more_epochs=0):
    with RunFolder.open(path) as folder:
        run = Resumed(folder, settings, more_epochs)
        if run.nothing_to_do:
            return None
        trainer = run.trainer()
        trainer.callbacks += callbacks
        trainer.fit()
    return trainer


def contents(path):
    """What must be the same of two runs: all bytes but the times."""
    path = Path(path)
    found = {p.name: p.read_bytes() for p in path.iterdir() if p.name not in (".lock", "curves.png")}
    rows = [{**row, **TIMES} for row in read_metrics(path / "metrics.jsonl")]
    found |= {"metrics.jsonl": rows, "curves.png": (path / "curves.png").exists()}
    found["summary.json"] = {**json.loads(found["summary.json"]), "wall_seconds": 0}
    return found
