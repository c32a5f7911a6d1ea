"""Resume a run that was stopped or killed. It ends with the same bits as a run that was never interrupted.

The settings are those of ``config.toml``. They may differ from the checkpoint's only in ``threads``, which does not affect
the result, ``data_dir``, ``weights`` and ``cache``, since files may have been moved (the sums of the first two may not differ),
and ``epochs``, which may have been increased. If the kernels' target differs, the bits will differ from there on; ``note``
says so.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DataError, MiniresError, RunError, plural
from ..version import __version__
from .build import build_trainer
from .checkpoint import Checkpoint
from .folders import changes, listing, read_listing
from .metrics import repair_metrics
from .recipe import Recipe
from .run import Recorder, RunFolder, data_checksums, data_sets, target_kind
from .trainer import Trainer
from .weights import pinned

MAY_DIFFER = ("threads", "data_dir", "weights", "cache")
REQUIRED = ("epoch", "step", "progress", "schedule", "random", "data", "recipe", "minires_version", "best_val_acc")


class Resumed:
    """The state of a run in its folder (``RunFolder.open``): ``recipe``, ``rows``, ``checkpoint`` (None before the first).

    settings: settings that the user has given; they must equal those of the run, except for ``MAY_DIFFER`` and a larger number
    of epochs, of which the run becomes one. more_epochs: the number of epochs to add to a run that is complete; the same again,
    after the longer run was killed, is refused: epochs would be added once more. The schedule becomes that of the longer run.
    Raises RunError, which names each difference; DataError for files that are incomplete or damaged.
    """

    def __init__(self, folder: RunFolder, settings: dict[str, Any] | None = None, more_epochs: int = 0) -> None:
        self.folder = folder
        self.checkpoint = _load(folder.last) if folder.last.exists() else None
        written = Recipe.read(folder.config)
        if self.checkpoint is not None:
            self._check_config(written, self.checkpoint)
        self.recipe = self._with(written, settings or {})
        if more_epochs and self.recipe.steps is not None:
            raise RunError(
                f"{folder} is a run of {self.recipe.steps:,} steps, to which no epochs can be added: begin a longer one with "
                "--recipe and --steps"
            )
        info = self.checkpoint.info if self.checkpoint is not None else {"epoch": 0}
        self.rows = repair_metrics(folder.metrics, info["epoch"])
        if more_epochs:
            longer = self.recipe.epochs + more_epochs
            if not self.complete:
                raise RunError(
                    f"{folder} has finished {len(self.rows)} of its {plural(self.recipe.epochs, 'epoch')}, and more are added "
                    f"to a complete run: leave --more-epochs out to go on, or say --epochs {longer}"
                )
            self.recipe = self.recipe.with_settings(epochs=longer)

    def _check_config(self, written: Recipe, checkpoint: Checkpoint) -> None:
        """Compare config.toml with the recipe in the checkpoint. Raises RunError when they differ."""
        saved = Recipe.from_settings(checkpoint.info["recipe"], self.folder.last)
        changed = [name for name in important_differences(saved, written) if name != "epochs"]
        if written.steps is None and written.epochs < max(saved.epochs, checkpoint.info["epoch"]):
            changed.append("epochs")
        if changed:
            raise RunError(
                f"{self.folder.config} was changed since the run began ({describe(changed, saved, written)}): "
                "change it back to go on, or begin a new run from it with --recipe"
            )

    def _with(self, recipe: Recipe, settings: dict[str, Any]) -> Recipe:
        """The recipe with the user's settings. Raises RunError for those that may not differ."""
        settings = {"warmup": recipe.warmup, **settings}  # so that a different schedule does not change it
        for table in ("model_options", "lr_factors"):
            if table in settings:  # some of its entries
                settings[table] = getattr(recipe, table) | settings[table]
        if settings.get("weights", recipe.weights) == recipe.weights:  # whose file may be gone
            wanted = recipe.with_settings(**{"weights_sha256": recipe.weights_sha256, **settings})
        else:
            wanted = pinned(recipe.with_settings(**settings))
        refused = important_differences(recipe, wanted)
        if refused and not (refused == ["epochs"] and wanted.epochs > recipe.epochs):
            raise RunError(
                f"{self.folder} was begun with other settings ({describe(refused, recipe, wanted)}): "
                "leave these options out to go on, or begin a new run"
            )
        return wanted

    @property
    def complete(self) -> bool:
        """Whether all epochs, or all steps, are complete."""
        if self.recipe.steps is None:
            return len(self.rows) >= self.recipe.epochs
        info = self.checkpoint.info if self.checkpoint is not None else {"step": 0}
        return info["step"] >= self.recipe.steps and info["progress"] is None

    @property
    def nothing_to_do(self) -> bool:
        """Whether all epochs are complete and the summary is written."""
        return self.complete and self.folder.summary.exists()

    @property
    def note(self) -> str | None:
        """What the user should know before the run continues, or None."""
        info = self.checkpoint.info if self.checkpoint is not None else {}
        version, here, notes = info.get("minires_version", __version__), target_kind(), []
        if version != __version__:
            notes.append(f"minires {version} began this run, and this is {__version__}: the last bits may differ.")
        target = info.get("target", here)  # older checkpoints do not have it
        if target != here:
            other = ", and so does the choice of Winograd convolutions" if self.recipe.winograd else ""
            notes.append(
                f"This run was saved on a machine with {target} kernels, and here they are {here}: "
                f"rounding differs{other}. The run goes on, but not to the same bits as there."
            )
        return "\n".join(notes) or None

    def trainer(self, on_read: Callable[[int, int], object] | None = None) -> Trainer:
        """The Trainer in the state of the checkpoint, with a Recorder that continues the run's files.

        on_read: see ``load_data``.

        Raises ConfigError or DataError as ``build_trainer`` does; RunError when the images have changed, or when the
        checkpoint does not fit the model.
        """
        trainer = build_trainer(self.recipe, weights=self.checkpoint is None, on_read=on_read)
        recorder = Recorder(self.folder, self.recipe)
        if self.checkpoint is not None:
            info = self.checkpoint.info
            if info["data"] != data_checksums(trainer):
                where = f" in {self.recipe.data_dir}" if self.recipe.data_dir else ""
                raise RunError(
                    f"the images of {self.recipe.dataset}{where} are not those that {self.folder} was begun with"
                    f"{self._changed_images(trainer)}: give their folder with --data-dir, or begin a new run"
                )
            self._check_position(info, len(trainer.train_loader), trainer.steps)
            try:
                trainer.model.load_state_dict(self.checkpoint.model)
                trainer.optimizer.load_state_dict(self.checkpoint.optimizer)
                trainer.load_state_dict(info)
                if trainer.average is not None:
                    trainer.average.load_state_dict(self.checkpoint.average)
                    if trainer.average.predicts:
                        trainer.average.exchange()
            except MiniresError as error:
                raise RunError(f"{self.folder.last} does not fit the model of {self.folder.config}: {error}") from error
            recorder.best_val_acc = info["best_val_acc"] if self._has_best(info["epoch"]) else None
        if self.recipe != Recipe.read(self.folder.config):
            self.folder.write_config(self.recipe)
        if not self.complete:
            self.folder.check()
            self.folder.summary.unlink(missing_ok=True)  # written before epochs were added
        trainer.history = list(self.rows)
        trainer.callbacks = (recorder,)
        return trainer

    def _has_best(self, epoch: int) -> bool:
        """Whether best.safetensors is of one of the first epochs: not of one that is trained again, maybe to other weights."""
        try:
            return Checkpoint.load(self.folder.best).info.get("epoch", epoch + 1) <= epoch
        except (OSError, MiniresError):
            return False  # it is written again

    def _changed_images(self, trainer: Trainer) -> str:
        """Which images of a folder have changed, in parentheses; "" if it is not known."""
        then, now = read_listing(self.folder.images), listing(data_sets(trainer), self.recipe.data_dir)
        said = changes(then, now) if then is not None and now is not None else ""
        return f" ({said})" if said else ""

    def _check_position(self, info: dict[str, Any], steps: int, last: int | None) -> None:
        """Raise CheckpointError when the counters of a checkpoint contradict each other.

        steps: those of an epoch; last: of the run, if it may end in the middle of one.
        """
        batches = info["progress"]["batches"] if info["progress"] else 0
        expected = info["epoch"] * steps + batches
        if last is not None and not batches:
            expected = min(expected, last)
        if batches > steps or not info["step"] == info["schedule"]["position"] == expected:
            raise CheckpointError(
                f"{self.folder.last}: step is {info['step']} and schedule.position {info['schedule']['position']}, and "
                f"{info['epoch']} epochs of {steps} steps with {batches} more are {expected}: it cannot be gone on from"
            )


def _load(path: Path) -> Checkpoint:
    """The checkpoint of a run to be resumed. Raises DataError when it lacks something that is needed."""
    checkpoint = Checkpoint.load(path)
    if not checkpoint.info:
        raise DataError(f"{path} is not a minires checkpoint: it holds weights, and nothing of a run to go on with")
    for name in REQUIRED:
        if name not in checkpoint.info:
            raise DataError(f"{path} is of an earlier minires: it can be evaluated, not gone on from (no {name!r})")
    if checkpoint.info["schedule"] is None:
        raise CheckpointError(f"{path}: schedule is None, and the runs of minires have one")
    checkpoint.require_optimizer(path)
    return checkpoint


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The names of the settings in which two recipes differ."""
    return [name for name, value in asdict(a).items() if value != asdict(b)[name]]


def important_differences(a: Recipe, b: Recipe) -> list[str]:
    """The names of the settings that change the result, and in which two recipes differ."""
    names = [name for name in differences(a, b) if name not in MAY_DIFFER]
    if "weights_sha256" in names and a.weights != b.weights:
        names[names.index("weights_sha256")] = "weights"
    return names


def describe(names: list[str], before: Recipe, after: Recipe) -> str:
    return ", ".join(f"{name} is {getattr(before, name)!r} there, not {getattr(after, name)!r}" for name in names)
