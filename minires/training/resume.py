"""Going on with a run that was stopped or killed, to the same bits as if it never had been.

The settings are those of ``config.toml``. Of what the checkpoint was made with only these may differ: ``threads``, which
never change a bit; ``data_dir``, since files move; and ``epochs``, which may become more. The target of the kernels may
differ too, with other bits from there on, which ``note`` says.
"""

from dataclasses import asdict

from .. import __version__
from ..errors import DataError, MiniresError, RunError
from .build import build_trainer
from .checkpoint import Checkpoint
from .metrics import repair_metrics
from .recipe import Recipe
from .run import Recorder, data_checksums, target_kind

FREE = ("threads", "data_dir")
NEEDED = ("epoch", "step", "progress", "schedule", "random", "data", "recipe", "minires_version", "best_val_acc")


class Resumed:
    """A run's folder (``RunFolder.open``) read back: ``recipe``, ``checkpoint`` (None before the first), ``rows``.

    settings: what the user says beside; refused when it is not what the run has, unless it is one of ``FREE``.
    more_epochs: train so many more than the run was to have; its schedule is then that of the longer run.
    Raises RunError that names each difference, DataError for files that are not whole.
    """

    def __init__(self, folder, settings=None, more_epochs=0):
        self.folder = folder
        self.checkpoint = _load(folder.last) if folder.last.exists() else None
        written = Recipe.read(folder.config)
        if self.checkpoint is not None:
            self._check_config(written)
        self.recipe = self._with(written, settings or {})
        if more_epochs:
            self.recipe = self.recipe.with_settings(epochs=self.recipe.epochs + more_epochs)
        info = self.checkpoint.info if self.checkpoint is not None else {"epoch": 0}
        self.rows = repair_metrics(folder.metrics, info["epoch"])

    def _check_config(self, written):
        """config.toml against what the checkpoint was made with."""
        saved = Recipe.from_settings(self.checkpoint.info["recipe"], self.folder.last)
        changed = [name for name in _differences(saved, written) if name not in (*FREE, "epochs")]
        if written.epochs < max(saved.epochs, self.checkpoint.info["epoch"]):
            changed.append("epochs")
        if changed:
            raise RunError(
                f"{self.folder.config} was changed since the run began ({_told(changed, saved, written)}): "
                "change it back to go on, or begin a new run from it with --recipe"
            )

    def _with(self, recipe, settings):
        wanted = recipe.with_settings(**{"warmup": recipe.warmup, **settings})  # a schedule brings no warmup here
        refused = [name for name in _differences(recipe, wanted) if name not in FREE]
        if refused == ["epochs"] and wanted.epochs > recipe.epochs:
            raise RunError(
                f"{self.folder} is a run of {recipe.epochs} epochs, not of {wanted.epochs}: "
                f"to train it longer, say --more-epochs {wanted.epochs - recipe.epochs}"
            )
        if refused:
            raise RunError(
                f"{self.folder} was begun with other settings ({_told(refused, recipe, wanted)}): "
                "leave these options out to go on, or begin a new run"
            )
        return wanted

    @property
    def complete(self):
        """Whether all epochs are done."""
        return len(self.rows) >= self.recipe.epochs

    @property
    def settled(self):
        """Whether there is nothing at all left to do, or to write."""
        return self.complete and self.folder.summary.exists()

    @property
    def note(self):
        """What the user should know before it goes on, or None."""
        info = self.checkpoint.info if self.checkpoint is not None else {}
        version, here, notes = info.get("minires_version", __version__), target_kind(), []
        if version != __version__:
            notes.append(f"minires {version} began this run, and this is {__version__}: the last bits may differ.")
        target = info.get("target", here)  # checkpoints from before it was stored do not say
        if target != here:
            other = ", nor are the convolutions that go Winograd's way" if self.recipe.winograd else ""
            notes.append(
                f"This run was saved on a machine with {target} kernels, and here they are {here}: "
                f"rounding is not the same{other}, so that it goes on, but not to the bits it would have come to there."
            )
        return "\n".join(notes) or None

    def trainer(self):
        """The Trainer where the run stood, with a Recorder that goes on recording.

        Raises DataError or ConfigError for what cannot be built, RunError when the images are others than before.
        """
        trainer = build_trainer(self.recipe)
        recorder = Recorder(self.folder, self.recipe)
        if self.checkpoint is not None:
            info = self.checkpoint.info
            if info["data"] != data_checksums(trainer):
                where = f" in {self.recipe.data_dir}" if self.recipe.data_dir else ""
                raise RunError(
                    f"the images of {self.recipe.dataset}{where} are not those that {self.folder} was begun with: "
                    "give their folder with --data-dir, or begin a new run"
                )
            try:
                trainer.model.load_state_dict(self.checkpoint.model)
                trainer.optimizer.load_state_dict(self.checkpoint.optimizer)
            except MiniresError as error:
                raise RunError(f"{self.folder.last} does not fit the model of {self.folder.config}: {error}") from error
            trainer.load_state_dict(info)
            recorder.best_val_acc = info["best_val_acc"]
        if self.recipe != Recipe.read(self.folder.config):
            self.folder.write_config(self.recipe)
        if not self.complete:
            self.folder.summary.unlink(missing_ok=True)  # of before it got more epochs
        trainer.history = list(self.rows)
        trainer.callbacks = (recorder,)
        return trainer


def _load(path):
    checkpoint = Checkpoint.load(path)
    if not checkpoint.info:
        raise DataError(f"{path} is no checkpoint of minires: it holds weights, and nothing of a run to go on with")
    for name in NEEDED:
        if name not in checkpoint.info:
            raise DataError(f"{path} is of an earlier minires: it can be evaluated, not gone on from (no {name!r})")
    return checkpoint


def _differences(a, b):
    """The names of the settings that two recipes do not share."""
    a, b = asdict(a), asdict(b)
    return [name for name in a if a[name] != b[name]]


def _told(names, before, after):
    return ", ".join(f"{name} is {getattr(before, name)!r} there, not {getattr(after, name)!r}" for name in names)
