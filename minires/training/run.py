"""The folder of a run, and the callback that fills it.

config.toml       the Recipe
metrics.jsonl     one JSON object an epoch
last.safetensors  the checkpoint of the last complete epoch
best.safetensors  with ``val``: the checkpoint with the best validation accuracy. Nothing is ever chosen on the test set
summary.json      how it ended
curves.png        loss and accuracy by epoch
"""

import time
from dataclasses import asdict
from itertools import count
from pathlib import Path

from .. import __version__, kernels
from ..errors import ConfigError
from .build import build_model
from .checkpoint import Checkpoint
from .curves import draw_curves
from .metrics import append_metrics, write_summary
from .recipe import Recipe
from .trainer import Callback

FILES = ("config.toml", "metrics.jsonl", "last.safetensors", "best.safetensors", "summary.json", "curves.png")


class RunFolder:
    """The paths in a run's folder: ``config``, ``metrics``, ``last``, ``best``, ``summary``, ``curves``."""

    def __init__(self, path):
        self.path = Path(path)
        for name in FILES:
            setattr(self, name.partition(".")[0], self.path / name)

    @classmethod
    def create(cls, recipe, path=None):
        """Make the folder and write the recipe into it. By default the next free ``runs/<model>-<dataset>-<n>``.

        Raises ConfigError when it cannot be made or written to, or when it holds a run already.
        """
        try:
            folder = cls(path) if path is not None else cls(_next_free(f"runs/{recipe.model}-{recipe.dataset}"))
            folder.path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if (folder.path / name).exists():
                    raise ConfigError(
                        f"{folder.path} already holds a run ({name}): choose another folder, or delete this one"
                    )
            with open(folder.config, "x", encoding="utf-8") as file:
                file.write(recipe.to_toml(__version__))
        except OSError as error:
            path = Path(error.filename or path or "runs")
            for file in (p for p in (path, *path.parents) if p.is_file()):
                raise ConfigError(f"{file} is a file, not a folder: choose another place for the run") from error
            raise ConfigError(
                f"cannot write the run to {path} ({error.strerror}): choose a folder that you may write to"
            ) from error
        return folder

    def __str__(self):
        return str(self.path)


def _next_free(base):
    for n in count(1):
        path = Path(f"{base}-{n}")
        try:
            path.mkdir(parents=True)  # fails when it exists: two runs that start together get two folders
            return path
        except FileExistsError:
            if not path.parent.is_dir():
                raise


class Recorder(Callback):
    """Writes metrics and checkpoints after every epoch, the curves and the summary at the end."""

    def __init__(self, folder, recipe):
        self.folder, self.recipe = folder, recipe
        self.best_val_acc = None

    def on_start(self, trainer):
        self.began = time.perf_counter()

    def on_epoch(self, trainer, row):
        append_metrics(self.folder.metrics, row)  # first: whatever a checkpoint counts as done has its row
        better = "val_acc" in row and (self.best_val_acc is None or row["val_acc"] > self.best_val_acc)
        if better:
            self.best_val_acc = row["val_acc"]
        checkpoint = self.checkpoint(trainer)
        if better:
            checkpoint.save(self.folder.best)
        checkpoint.save(self.folder.last)

    def on_end(self, trainer):
        if not trainer.history:
            return
        accuracy = trainer.history[-1]["test_acc"]
        title = f"{self.recipe.model} on {self.recipe.dataset}: {100 * accuracy:.2f} % test accuracy"
        draw_curves(trainer.history, self.folder.curves, f"{title} after {_epochs(trainer.epoch)}")
        if trainer.finished:
            write_summary(self.folder.summary, self.summary(trainer))

    def checkpoint(self, trainer):
        """All that the run is made of at this moment."""
        info = {
            "num_classes": trainer.train_loader.dataset.num_classes,
            "epoch": trainer.epoch,
            "step": trainer.step,
            "schedule": trainer.schedule.state_dict(),
            "best_val_acc": self.best_val_acc,
            "recipe": asdict(self.recipe),
            "minires_version": __version__,
        }
        return Checkpoint(trainer.model.state_dict(), trainer.optimizer.state_dict(), info)

    def summary(self, trainer):
        """The content of ``summary.json``."""
        summary = {
            "model": self.recipe.model,
            "dataset": self.recipe.dataset,
            "epochs": trainer.epoch,
            "final_test_acc": trainer.history[-1]["test_acc"],
            "wall_seconds": time.perf_counter() - self.began,
            "params": sum(p.size for p in trainer.model.parameters()),
            "seed": self.recipe.seed,
            "threads": kernels.get_num_threads(),
            "minires_version": __version__,
        }
        return summary if self.best_val_acc is None else {**summary, "best_val_acc": self.best_val_acc}


def _epochs(count):
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def load_run(path):
    """(recipe, model, checkpoint) of a run folder, whose last checkpoint is taken, or of one checkpoint file.

    The model is in eval mode. Raises ConfigError or DataError when there is no such run, or no checkpoint in it yet.
    """
    path = Path(path)
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.last.exists():
            what = "has finished no epoch yet" if folder.config.exists() else "is no folder of a run"
            raise ConfigError(f"{path} {what}: it holds no {folder.last.name}")
        path = folder.last
    elif not path.exists():
        raise ConfigError(f"there is no run {path}: give the folder of a run, or one of its checkpoints")
    checkpoint = Checkpoint.load(path)
    recipe = Recipe.from_settings(checkpoint.info["recipe"], path)
    model = build_model(recipe, checkpoint.info["num_classes"])
    model.load_state_dict(checkpoint.model)
    model.eval()
    return recipe, model, checkpoint
