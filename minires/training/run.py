"""The folder of a run, and the callback that writes its files.

config.toml          the Recipe
metrics.jsonl        one JSON object for each epoch
last.safetensors     the checkpoint for `minires train --resume`: after the last complete epoch, or within an epoch
best.safetensors     with ``val``: the checkpoint with the best validation accuracy. Nothing is ever chosen on the test set
summary.json         the result
curves.png           loss and accuracy by epoch
anomaly.safetensors  after a NaN or Inf: the batch that caused it (``replay.py``)
images.json          of a folder of images: which ones it was trained on (``folders.py``)
.lock                the lock file (``lock.py``)
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, Self

from .. import kernels
from ..anomaly import all_finite
from ..data import MapDataset
from ..errors import AnomalyError, ConfigError, DataError, RunError, plural
from ..files import atomic_write, remove_temporary_files
from ..lock import FolderLock
from ..nn import Module
from ..version import __version__
from .build import restore_model
from .checkpoint import Checkpoint
from .curves import draw_curves
from .diagnosis import Batch
from .folders import Images, listing, write_listing
from .metrics import Mean, append_metrics, write_summary
from .recipe import Recipe
from .replay import save_anomaly
from .trainer import Callback, Trainer

FILES = (
    "config.toml",
    "metrics.jsonl",
    "last.safetensors",
    "best.safetensors",
    "summary.json",
    "curves.png",
    "anomaly.safetensors",
    "images.json",
)
SAVE_EVERY = 300.0  # seconds between checkpoints within a long epoch


class RunFolder:
    """The paths in a run: ``config``, ``metrics``, ``last``, ``best``, ``summary``, ``curves``, ``anomaly``, ``images``.

    A RunFolder from ``create`` or ``open`` holds the folder's lock until ``close()`` or the end of its ``with`` block.
    """

    config: Path
    metrics: Path
    last: Path
    best: Path
    summary: Path
    curves: Path
    anomaly: Path
    images: Path

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.lock: FolderLock | None = None
        for name in FILES:
            setattr(self, name.partition(".")[0], self.path / name)

    @classmethod
    def create(cls, recipe: Recipe, path: Path | str | None = None) -> Self:
        """Create the folder and write the recipe. path: by default the next free ``runs/<model>-<dataset>-<n>``.

        Raises ConfigError when the folder cannot be created or written to, or already holds a run; RunError when another
        process is using it.
        """
        with _explained(path):
            folder = cls(path) if path is not None else cls(_next_free(f"runs/{recipe.model}-{recipe.dataset}"))
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.lock = FolderLock(folder.path)
            remove_temporary_files(folder.path, FILES)  # of a process that was killed as it created the run
            for name in FILES:
                if (folder.path / name).exists():
                    folder.close()
                    raise ConfigError(
                        f"{folder.path} already holds a run ({name}): choose another folder, or delete this one"
                    )
            folder.write_config(recipe)
        return folder

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the folder of a run to resume. Raises ConfigError when it holds no run, RunError when it is in use."""
        folder = cls(path)
        if not folder.config.is_file():
            what = f"{folder.path} is not a run folder: it holds no {folder.config.name}. Give the one that train named"
            raise ConfigError(
                what if folder.path.is_dir() else f"there is no run {folder.path}: give the folder of one"
            )
        with _explained(path):
            folder.lock = FolderLock(folder.path)
            remove_temporary_files(folder.path, FILES)
        return folder

    def check(self) -> None:
        """Check, before a file is written, that the folder is still the one that was locked. Raises RunError."""
        if self.lock is not None:
            self.lock.check()

    def write_config(self, recipe: Recipe) -> None:
        """Write ``config.toml`` atomically. Raises RunError when the folder is no longer the one that was locked."""
        self.check()
        with atomic_write(self.config, "w") as file:
            file.write(recipe.to_toml(__version__))

    def close(self) -> None:
        """Release the lock."""
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __str__(self) -> str:
        return str(self.path)


@contextmanager
def _explained(path: Path | str | None) -> Iterator[None]:
    """Turn an OSError in the block into a ConfigError that says what to do."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename or path or "runs")
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            for file in (p for p in (path, *path.parents) if p.is_file()):
                raise ConfigError(f"{file} is a file, not a folder: choose another place for the run") from error
        raise ConfigError(
            f"cannot write the run to {path} ({error.strerror}): choose a folder that you may write to"
        ) from error


def _next_free(base: str) -> Path:
    """Create the first folder ``base``-1, ``base``-2, … that does not exist."""
    numbers = count(1)
    while True:
        path = Path(f"{base}-{next(numbers)}")
        try:
            path.mkdir(parents=True)  # fails when it exists, so that runs started together get different folders
            return path
        except FileExistsError:
            if not path.parent.is_dir():
                raise


class Recorder(Callback):
    """Writes metrics and checkpoints after every epoch and when training stops, and curves and a summary at the end.

    Whenever the process dies, the folder holds what ``Resumed`` needs to continue to the same bits: an epoch's row of metrics
    is written before the checkpoint that counts the epoch as complete, and rows without such a checkpoint are removed again.
    Raises RunError, before anything is written, when the folder is no longer the one that was locked.
    save_every: seconds between two checkpoints within an epoch.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, save_every: float = SAVE_EVERY) -> None:
        self.folder, self.recipe, self.save_every = folder, recipe, save_every
        self.best_val_acc: float | None = None

    def on_start(self, trainer: Trainer) -> None:
        self._check_folder(trainer)
        self.began = time.perf_counter()
        self.seconds = sum(row["seconds"] for row in trainer.history) + trainer.progress.seconds  # in earlier sessions
        self.data = data_checksums(trainer)
        listed = listing(data_sets(trainer), self.recipe.data_dir)
        # else the images may be others than at its first start
        goes_on = trainer.step > 0 and self.folder.images.exists()
        if listed is not None and not goes_on:
            self.folder.check()
            write_listing(self.folder.images, listed)
        self._note_saved(trainer)

    def _check_folder(self, trainer: Trainer) -> None:
        """Raise RunError, before hours are spent, for a folder that is not locked, or not one of the trainer's epochs."""
        folder = self.folder
        if folder.lock is None:
            raise RunError(f"{folder} is not open: give the Recorder what RunFolder.create or RunFolder.open returns")
        folder.check()
        rows = folder.metrics.read_bytes().count(b"\n") if folder.metrics.exists() else 0
        if rows != trainer.epoch:
            raise RunError(
                f"{folder} holds a run after {plural(rows, 'epoch')}, and the trainer is after {trainer.epoch}: go on by "
                "Resumed(folder).trainer(), or create another folder"
            )

    def on_step(self, trainer: Trainer, mean: Mean) -> None:
        if time.perf_counter() - self.saved_at > self.save_every:
            self._save_last(trainer)

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self.folder.check()
        append_metrics(self.folder.metrics, row)  # first: every epoch that a checkpoint counts as complete has a row
        better = "val_acc" in row and (self.best_val_acc is None or row["val_acc"] > self.best_val_acc)
        if better:
            self.best_val_acc = row["val_acc"]
            self._save(trainer, self.folder.best)
        self._save_last(trainer)

    def on_anomaly(self, trainer: Trainer, error: AnomalyError, batch: Batch) -> None:
        info = {"recipe": asdict(self.recipe), "num_classes": trainer.train_loader.dataset.num_classes}
        info |= {"epoch": trainer.epoch, "step": trainer.step, "said": str(error), "minires_version": __version__}
        with suppress(OSError, RunError):  # neither a full disk nor a lost folder must hide the AnomalyError
            self.folder.check()
            save_anomaly(self.folder.anomaly, trainer.model, batch, info)

    def on_end(self, trainer: Trainer) -> None:
        if self.saved != _position(trainer):
            self._save_last(trainer)
        if not trainer.history:
            return
        self.folder.check()
        title, accuracy = f"{self.recipe.model} on {self.recipe.dataset}", trainer.history[-1].get("test_acc")
        title += "" if accuracy is None else f": {100 * accuracy:.2f} % test accuracy"
        self._draw_curves(trainer, f"{title} after {plural(trainer.epoch, 'epoch')}")
        if trainer.finished:
            self.folder.check()
            write_summary(self.folder.summary, self.summary(trainer))

    def _draw_curves(self, trainer: Trainer, title: str) -> None:
        try:
            draw_curves(trainer.history, self.folder.curves, title)
        except Exception as error:  # of the disk, or any of Matplotlib's: a run must not end for want of a picture
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            warnings.warn(
                f"minires could not draw {self.folder.curves} ({reason}): it alone is missing, and "
                "minires.training.draw_curves draws it from the metrics",
                stacklevel=2,
            )

    def _save(self, trainer: Trainer, path: Path) -> None:
        checkpoint = self.checkpoint(trainer)
        self.folder.check()
        checkpoint.save(path)

    def _save_last(self, trainer: Trainer) -> None:
        self._save(trainer, self.folder.last)
        self._note_saved(trainer)

    def _note_saved(self, trainer: Trainer) -> None:
        self.saved, self.saved_at = _position(trainer), time.perf_counter()

    def checkpoint(self, trainer: Trainer) -> Checkpoint:
        """The Checkpoint of the present state. Raises AnomalyError for weights that are not finite, which are not saved."""
        average = trainer.average
        with trainer.predicting():
            state = trainer.model.state_dict()
            if average is not None:  # copies, since the model is about to have other values
                state = {name: array.copy() for name, array in state.items()}
            averaged = average.state_dict() if average is not None else {}
        for name, array in state.items():
            if not all_finite(array):
                epoch = trainer.epoch + (trainer.progress.batches > 0)
                raise AnomalyError(f"{name} is not finite after step {trainer.step} (epoch {epoch})")
        info = {
            **trainer.state_dict(),
            **described(trainer.train_loader.dataset),
            "data": self.data,
            "best_val_acc": self.best_val_acc,
            "recipe": asdict(self.recipe),
            "minires_version": __version__,
            "target": target_kind(),
        }
        return Checkpoint(state, trainer.optimizer.state_dict(), info, average=averaged)

    def summary(self, trainer: Trainer) -> dict[str, Any]:
        """The content of ``summary.json``."""
        summary = {
            "model": self.recipe.model,
            "dataset": self.recipe.dataset,
            "epochs": trainer.epoch,
            "final_test_acc": trainer.history[-1]["test_acc"],
            "wall_seconds": self.seconds + time.perf_counter() - self.began,
            "params": sum(p.size for p in trainer.model.parameters()),
            "seed": self.recipe.seed,
            "threads": kernels.get_num_threads(),
            "minires_version": __version__,
        }
        augmented = f"test_{trainer.tta}_acc"
        if augmented in trainer.history[-1]:
            summary[f"final_{augmented}"] = trainer.history[-1][augmented]
        return summary if self.best_val_acc is None else {**summary, "best_val_acc": self.best_val_acc}


def described(dataset: Images) -> dict[str, Any]:
    """What a network must know of its data to be used without them."""
    return {
        "num_classes": dataset.num_classes,
        "classes": list(dataset.classes),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
        "image_size": dataset.image_size,
    }


def _position(trainer: Trainer) -> tuple[int, int]:
    """(complete epochs, steps in the next)."""
    return trainer.epoch, trainer.progress.batches


def target_kind() -> str:
    """The target of the kernels, such as "avx2". It selects the kernels and thus determines the bits of the results."""
    from ..kernels.runtime.target import KIND  # here, since it imports Numba

    return KIND


def data_checksums(trainer: Trainer) -> list[int]:
    """[CRC-32 of the training set, of the test set], to check that a resumed run has the same images.

    The first is of the validation set of a folder too, which need not be a part of its training set.
    """
    sets = data_sets(trainer)
    train, test, val = sets["train"], sets["test"], sets["val"]
    assert train is not None
    assert test is not None
    crc = train.checksum()
    return [val.checksum(crc) if isinstance(val, MapDataset) else crc, test.checksum()]


def data_sets(trainer: Trainer) -> dict[str, Images | None]:
    """The data sets of a trainer by name: "train", "test" and "val"."""
    loaders = {"train": trainer.train_loader, "test": trainer.test_loader, "val": trainer.val_loader}
    return {name: None if loader is None else loader.dataset for name, loader in loaders.items()}


def load_run(path: Path | str) -> tuple[Recipe, Module, Checkpoint]:
    """(recipe, model, checkpoint) from a run's folder, whose last checkpoint is used, or from a checkpoint file.

    The model is in evaluation mode; ``with recipe.switches():`` sets fusion and Winograd as in training. Raises ConfigError
    when there is no run or no checkpoint yet, DataError when the checkpoint is damaged or not of minires.
    """
    path = Path(path)
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.last.exists():
            what = "has finished no epoch yet" if folder.config.exists() else "is not a run folder"
            raise ConfigError(f"{path} {what}: it holds no {folder.last.name}. Give the folder of a run that has one")
        path = folder.last
    elif not path.exists():
        raise ConfigError(f"there is no run {path}: give the folder of a run, or one of its checkpoints")
    checkpoint = Checkpoint.load(path)
    if not checkpoint.info:
        raise DataError(
            f"{path} is not a minires checkpoint: it holds weights ({', '.join(list(checkpoint.model)[:3])} …) and does not "
            "say of which model: give its name with --model, and the file with --weights"
        )
    recipe, model = restore_model(checkpoint, path)
    model.eval()
    return recipe, model, checkpoint
