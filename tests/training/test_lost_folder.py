"""A run folder that is deleted, renamed or made again while its run lives: the run ends, and writes nothing to it."""

import os
import shutil

import pytest

from minires.errors import AnomalyError, RunError
from minires.lock import FolderLock
from minires.training import Callback, Recipe, Recorder, RunFolder
from minires.training.diagnosis import Batch

RECIPE = Recipe(epochs=2, batch_size=16)


def make_again(path):
    """Delete the folder, as another run that is begun at the same place."""
    shutil.rmtree(path)
    return RunFolder.create(RECIPE, path)


def rename(path):
    path.rename(path.with_name("elsewhere"))


def rename_and_make_again(path):
    rename(path)
    return RunFolder.create(RECIPE, path)


def delete_the_lock(path):
    (path / ".lock").unlink()


def put_a_file_in_its_place(path):
    shutil.rmtree(path)
    path.touch()


LOSSES = [make_again, rename, rename_and_make_again, delete_the_lock, put_a_file_in_its_place, shutil.rmtree]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Lose(Callback):
    """Loses the folder when an epoch ends, before the Recorder writes."""

    def __init__(self, lose, path):
        self.lose, self.path = lose, path

    def on_epoch(self, trainer, row):
        self.other = self.lose(self.path)  # keeps the lock of the other run
        self.before = contents(self.path.parent)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_run_that_has_lost_its_folder_ends(make_trainer, tmp_path, lose, page):
    path = tmp_path / "run"
    folder = RunFolder.create(RECIPE, path)
    callback = Lose(lose, path)
    with pytest.raises(RunError) as caught:
        make_trainer(epochs=2, callbacks=(callback, Recorder(folder, RECIPE))).fit()
    page(str(caught.value))
    assert contents(tmp_path) == callback.before


WRITERS = {
    "checkpoint within an epoch": lambda recorder, trainer: recorder.on_step(trainer, None),
    "metrics, best and last": lambda recorder, trainer: recorder.on_epoch(trainer, {"val_acc": 1.0}),
    "curves and summary": lambda recorder, trainer: recorder.on_end(trainer),
    "config": lambda recorder, trainer: recorder.folder.write_config(RECIPE),
}


@pytest.fixture(scope="module")
def trained():
    """A list for the one trainer of this file."""
    return []


@pytest.fixture
def trainer(trained, make_trainer):
    if not trained:
        trained.append(make_trainer(epochs=1))
        trained[0].fit()
    return trained[0]


@pytest.fixture
def lost(trainer, tmp_path):
    """(the Recorder of a complete run, the folder that was made in place of its own)."""
    recorder = Recorder(RunFolder.create(RECIPE, tmp_path / "run"), RECIPE, save_every=0.0)
    recorder.folder.metrics.write_text("\n")  # of the trainer's epoch
    recorder.on_start(trainer)
    with make_again(tmp_path / "run") as other:
        yield recorder, other


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_looks_first(lost, trainer, write):
    recorder, other = lost
    before = contents(other.path)
    with pytest.raises(RunError, match="is no longer the folder"):
        write(recorder, trainer)
    assert contents(other.path) == before
    other.lock.check()


def test_a_lost_folder_does_not_hide_an_anomaly(lost, trainer):
    recorder, other = lost
    images, labels = next(iter(trainer.test_loader))
    recorder.on_anomaly(trainer, AnomalyError("a NaN"), Batch(images, labels, {}, 0.0))
    assert not other.anomaly.exists()


def test_the_working_directory_may_be_renamed(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with RunFolder.create(RECIPE, ".") as folder:
        rename(tmp_path / "run")
        folder.write_config(RECIPE)


def test_a_released_lock_protects_nothing(tmp_path):
    folder = RunFolder.create(RECIPE, tmp_path / "run")
    folder.close()
    with pytest.raises(RunError, match=r"the lock on .*run has been released: open the run again"):
        folder.write_config(RECIPE)


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_file_that_is_a_link_is_refused(tmp_path, there, page):
    target, run = tmp_path / "notes", tmp_path / "run"
    run.mkdir()
    if there:
        target.write_text("mine")
    try:
        (run / ".lock").symlink_to(target)
    except OSError:
        pytest.skip("links are not allowed here")
    with pytest.raises(RunError) as caught:
        FolderLock(run)
    page(str(caught.value))
    assert target.exists() == there
    assert not there or target.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_lock_file_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(RunError, match="not the lock file of a run"):
        FolderLock(tmp_path)


def test_a_lock_file_that_is_deleted_as_it_is_locked(tmp_path, monkeypatch):
    from minires import lock

    real = lock.try_lock

    def deleted(descriptor):
        (tmp_path / ".lock").unlink()
        real(descriptor)

    monkeypatch.setattr(lock, "try_lock", deleted)
    with pytest.raises(RunError, match="is no longer the folder"):
        FolderLock(tmp_path)
