"""Checkpoints whose checksum is right and whose content is not: they work, or a MiniresError says what is wrong with them."""

import json
import math
import random
import shutil
import sys
import time

import mutations
import numpy as np
import pytest
from stop_at import StopAt

from minires.cli.evaluate import evaluate
from minires.cli.replay import replay
from minires.errors import CheckpointError, DataError, MiniresError
from minires.training import Checkpoint, Recipe, Recorder, Resumed, RunFolder, build_trainer, load_run
from minires.training import build as build_module
from minires.training.diagnosis import Batch
from minires.training.replay import load_anomaly, save_anomaly

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05)  # 3 steps an epoch
KEPT = []  # the folder of the first test's run, which the others copy


@pytest.fixture(autouse=True)
def small(monkeypatch, tiny):
    monkeypatch.setattr(build_module.data, "load", lambda name, data_dir, seed: tiny)


@pytest.fixture
def run(tmp_path, tmp_path_factory):
    """The folder of a run that was stopped in its second epoch, with an anomaly.safetensors."""
    if KEPT:
        shutil.copytree(KEPT[0], tmp_path / "run")
        return RunFolder(tmp_path / "run")
    trainer = build_trainer(RECIPE)
    with RunFolder.create(RECIPE, tmp_path / "run") as folder:
        recorder = Recorder(folder, RECIPE)
        trainer.callbacks = (recorder, StopAt(4))
        trainer.fit()
        info = recorder.checkpoint(trainer).info
        images, labels = next(iter(trainer.train_loader))
        save_anomaly(folder.anomaly, trainer.model, Batch(images, labels, info["random"]), info)
    KEPT.append(shutil.copytree(folder.path, tmp_path_factory.mktemp("kept") / "run"))
    return folder


def resume(path):
    """What `minires train --resume` does, but for writing files."""
    with RunFolder.open(path) as folder:
        run = Resumed(folder)
        assert run.note is None or run.note
        trainer = run.trainer()
        trainer.callbacks = ()
        rows = trainer.fit()
    assert len(rows) == RECIPE.epochs
    assert all(math.isfinite(row["images_per_second"]) for row in rows)


USES = {
    "last.safetensors": (Checkpoint.load, load_run, evaluate),
    "anomaly.safetensors": (Checkpoint.load, load_run, load_anomaly, replay),
}


def rewrite(path, change, raw=None):
    """Change the metadata of a checkpoint, and make its checksum right; raw: a text in place of "@raw@"."""
    header, content, arrays = mutations.parts(path.read_bytes())
    change(content["info"])
    text = json.dumps({"checksum": "0" * 64, "info": content["info"]}, ensure_ascii=False)
    path.write_bytes(mutations.whole(header, text.replace('"@raw@"', raw or ""), arrays))


def put(place, value):
    """A function that puts a value at a place such as "progress.mean.images", or removes what is there (``...``)."""

    def change(info):
        *path, last = place.split(".")
        for key in path:
            info = info[int(key)] if isinstance(info, list) else info[key]
        if value is ...:
            del info[last]
        else:
            info[last] = value

    return change


DEEP = "[" * 100_000 + "]" * 100_000
SAID = [
    ("epoch", -1, "epoch is -1, not a whole number from 0 to 2147483647"),
    ("epoch", True, "epoch is True, not a whole"),
    ("epoch", 10**30, "epoch is 1000"),
    ("epoch", ..., r"is of an earlier minires: it can be evaluated, not gone on from \(no 'epoch'\)"),
    ("step", "4", "step is '4', not a whole number"),
    ("step", 5, "step is 5 and schedule.position 4, and 1 epochs of 3 steps with 1 more are 4"),
    ("progress", [1], r"progress is \[1\], not a table"),
    ("progress.batches", 4, "step is 4 and schedule.position 4, and 1 epochs of 3 steps with 4 more are 7"),
    ("progress.batches", 0, "progress.batches is 0, not a whole number from 1"),
    ("progress.lr", None, "progress.lr is None, not a number from 0 up"),
    ("progress.seconds", 0, "progress.seconds is 0, not a number from 1e-09 to 1e"),
    ("progress.mean", ..., "progress.mean is missing"),
    ("progress.mean.images", -16, "progress.mean.images is -16"),
    ("progress.mean.correct", 17, "progress.mean.correct is 17, more than progress.mean.images"),
    ("progress.mean.more", 1, "progress.mean has an entry 'more' too many"),
    ("schedule", None, "schedule is None"),
    ("schedule", {}, "schedule.position is missing"),
    ("schedule.position", -3, "schedule.position is -3"),
    ("schedule.base_lrs", 0.1, "schedule.base_lrs is 0.1, not a list"),
    ("schedule.warm", 1, "schedule.recent is missing"),
    ("schedule", {"position": 4, "base_lrs": [0.1], "warm": 1, "recent": []}, "schedule.warm is 1, not true or false"),
    ("schedule.base_lrs", [0.1], "the state is of 1 parameter groups"),
    ("schedule.base_lrs", [10**400] * 2, "schedule.base_lrs is "),
    ("random.state.state", 2**128, "random.state.state is 3402"),
    ("random.bit_generator", "MT19937", "random.bit_generator is 'MT19937'"),
    ("random.has_uint32", 2, "random.has_uint32 is 2"),
    ("data", [1], r"data is \[1\], not a list of 2 times"),
    ("best_val_acc", 1.5, "best_val_acc is 1.5, not a number from 0 to 1"),
    ("recipe", None, "recipe is None, not a table"),
    ("recipe.lr", "x", "lr must be a number above 0, not 'x'"),
    ("recipe.model_options", {"num_classes": [3]}, "the model option 'num_classes' must be"),
    ("minires_version", 1, "minires_version is 1, not a text"),
    ("optimizer", ..., "optimizer.state is missing"),
    ("optimizer", {"list": []}, r"optimizer is \[\], not a table"),
    ("optimizer", {"value": {}}, "optimizer is {'value': {}}, not an array of the file, a table, a list or a value"),
    ("optimizer", {"array": "fc.bias"}, "optimizer is {'array': 'fc.bias'}, not an array of the file"),
    ("epoch", "@raw@ NaN", "the number NaN is not finite"),
    ("epoch", "@raw@ 1e400", "the number 1e400 is not finite"),
    ("epoch", "@raw@ " + "9" * 5000, "not JSON: Exceeds the limit"),
    ("epoch", "@raw@ " + DEEP, "nested too deep"),
    ("epoch", '@raw@ 1, "epoch": 1', "the key 'epoch' is there twice"),
]


@pytest.mark.parametrize(
    ("place", "value", "said"), SAID, ids=[f"{place} {str(value)[:20]}" for place, value, _ in SAID]
)
def test_each_entry_is_checked_on_resume(run, place, value, said):
    raw = value.removeprefix("@raw@ ") if isinstance(value, str) and value.startswith("@raw@") else None
    rewrite(run.last, put(place, "@raw@" if raw else value), raw)
    with pytest.raises(MiniresError, match=said) as caught:
        resume(run.path)
    assert "last.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_the_unchanged_ones_work(run):
    rewrite(run.last, lambda info: None)
    resume(run.path)
    evaluate(run.path)
    assert replay(run.path) == 0


def test_settings_that_a_recipe_lacks_are_the_defaults_everywhere(run):
    for path in (run.last, run.anomaly):
        rewrite(path, put("recipe.model", ...))
    evaluate(run.path)
    assert replay(run.path) == 0
    resume(run.path)


def test_messages(run, page):
    rewrite(run.last, put("epoch", -1))
    with pytest.raises(CheckpointError) as caught:
        evaluate(run.path)
    page(str(caught.value))


@pytest.mark.parametrize("value", [10**9, 65])
def test_no_memory_is_allocated_for_classes_that_the_weights_do_not_have(run, value):
    for name in ("num_classes", "recipe.model_options"):
        rewrite(run.last, put(name, value if name == "num_classes" else {"in_channels": value}))
        with pytest.raises(
            CheckpointError, match=rf"(num_classes|in_channels) is {value}, and the longest axis of its"
        ):
            load_run(run.path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.full(16, -1)}, "batch.labels are from -1 to -1, and there are 10 classes"),
        ({"labels": np.full(16, 10)}, "batch.labels are from 10 to 10"),
        ({"labels": np.zeros(15, int)}, r"batch.labels of shape \(15,\)"),
        ({"labels": np.zeros(16)}, "batch.labels is an array of float64, not an array of whole numbers"),
        ({"labels": None}, "batch.labels is None"),
        ({"images": np.zeros((16, 3, 32, 32), int)}, "batch.images is an array of int64"),
        ({"random": {"state": 1}}, "batch.random"),
        ({"label_smoothing": "x"}, "batch.label_smoothing is 'x'"),
        ({"training": 1}, "batch.training is 1, not true or false"),
        ({"more": 1}, "batch has an entry 'more' too many"),
    ],
    ids=str,
)
def test_each_field_of_a_batch_is_checked_on_replay(run, changes, said):
    checkpoint = Checkpoint.load(run.anomaly)
    checkpoint.batch.update(changes)
    checkpoint.save(run.anomaly)
    with pytest.raises(CheckpointError, match=said):
        replay(run.path)


def test_what_json_cannot_hold_is_not_saved(tmp_path):
    for value in (math.nan, "\udce9", {1, 2}):
        with pytest.raises(DataError, match="info has a value that a checkpoint cannot hold"):
            Checkpoint({}, info={"epoch": value}).save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory as Unix does")
@pytest.mark.filterwarnings("ignore")  # of NumPy, on numbers that float32 does not hold
def test_changed_at_random(run, capsys):
    import resource

    rng = random.Random(11)
    original = {name: (run.path / name).read_bytes() for name in USES}
    kept = run.path.with_name("kept")
    shutil.copytree(run.path, kept)
    worked, refused, longest, slowest = 0, 0, 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(2000):
        name = rng.choice(("last.safetensors", "last.safetensors", "anomaly.safetensors"))
        path = run.path / name
        path.write_bytes(mutations.mutate(rng, original[name]))
        for use in USES[name] + ((lambda path: resume(path.parent),) if name.startswith("last") else ()):
            began = time.process_time()
            try:
                use(path)
                worked += 1
            except MiniresError as error:
                refused += 1
                longest = max(longest, len(str(error)))
            except Exception as error:
                error.add_note(f"change {i} of {name}")
                raise
            slowest = max(slowest, time.process_time() - began)
        for file in ("metrics.jsonl", "config.toml"):
            shutil.copy(kept / file, run.path / file)
    assert slowest < 5
    assert longest < 12_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB
    assert worked > 500
    assert refused > 2500
