"""The table of trainings, on runs that are made up, and the runs that are kept for it."""

import json
import shutil

import numpy as np
import pytest

from benchmarks import accuracy
from minires.training import Callback, Checkpoint, Recipe, Recorder, Resumed, RunFolder, build_trainer


@pytest.fixture
def readme(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{accuracy.BEGIN}old\n{accuracy.END}after\n")
    monkeypatch.setattr(accuracy, "PAGE", page)
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "accuracy")
    monkeypatch.setattr(accuracy, "step_ms", lambda: 60.0)
    return page


@pytest.fixture
def cifar_dir(tmp_path):
    """A folder that looks like CIFAR-10, with 5 × 8 training images and 8 test images."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (8, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return folder


def made_up(folder, seed, acc, **more):
    path = folder / f"seed-{seed}"
    path.mkdir(parents=True)
    rows = [
        {"epoch": 1, "seconds": 10.0},
        {"epoch": 2, "seconds": 80.0},
        {"epoch": 3, "seconds": 30.0, "test_acc": acc, **more},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "summary.json").write_text("{}")
    (path / "machine.json").write_text('{"resnet20_step_ms": 60.0}')


def test_the_table(readme):
    made_up(accuracy.RESULTS / "minutes20", 0, 0.93, test_views6_acc=0.94)
    made_up(accuracy.RESULTS / "minutes20", 1, 0.91, test_views6_acc=0.92)
    made_up(accuracy.RESULTS / "resnet20-he2015", 0, 0.915)
    lines = accuracy.table().splitlines()
    assert len(lines) == 4
    assert lines[2] == (
        "| [ResNet-20, `he2015`](results/accuracy/resnet20-he2015) · `minires train --recipe he2015` | 0 | 91.50 % | – | "
        "≈ 1.5 | ≈ 3.0 | 91.25 %, He et al. 2015 |"  # three times the median epoch
    )
    assert "| 0, 1 | 92.00 % ± 1.41, least 91.00 | 93.00 % ± 1.41, least 92.00 | 2.0 | 4.0 |" in lines[3]
    assert accuracy.page() == f"before\n{accuracy.BEGIN}\n{accuracy.table()}\n{accuracy.END}after\n"


def test_a_run_is_kept_without_what_is_the_machines(readme, tmp_path, capsys):
    recipe = Recipe(epochs=1, batch_size=64, seed=3, threads=1)
    trainer = build_trainer(recipe)
    trainer.train_loader.dataset = trainer.train_loader.dataset.take(range(64))
    trainer.test_loader.dataset = trainer.test_loader.dataset.take(range(64))
    with RunFolder.create(recipe, tmp_path / "run") as folder:
        trainer.callbacks = (Recorder(folder, recipe),)
        trainer.fit()
    accuracy.keep("shapes", [tmp_path / "run"], weights=False)
    kept = accuracy.RESULTS / "shapes" / "seed-3"
    assert sorted(path.name for path in kept.iterdir()) == [
        "config.toml", "curves.png", "machine.json", "metrics.jsonl", "summary.json"
    ]  # fmt: skip
    assert Recipe.read(kept / "config.toml") == recipe.with_settings(threads=None)
    assert json.loads((kept / "machine.json").read_text())["resnet20_step_ms"] == 60.0


def test_a_run_that_is_not_finished_goes_on_from_what_is_kept(readme, tmp_path, cifar_dir):
    """To the same bits, with the images elsewhere."""

    class Stop(Callback):
        def on_epoch(self, trainer, row):
            trainer.stop()

    recipe = Recipe(dataset="cifar10", data_dir=str(cifar_dir), epochs=2, batch_size=16, seed=3)
    for name, callbacks in (("whole", ()), ("begun", (Stop(),))):
        trainer = build_trainer(recipe)
        with RunFolder.create(recipe, tmp_path / name) as folder:
            trainer.callbacks = (Recorder(folder, recipe), *callbacks)
            trainer.fit()
    accuracy.keep("shapes", [tmp_path / "begun"], weights=False)
    kept = accuracy.RESULTS / "shapes" / "seed-3"
    assert str(cifar_dir) not in (kept / "config.toml").read_text()
    assert str(cifar_dir).encode() not in (kept / "last.safetensors").read_bytes()
    elsewhere = shutil.copytree(cifar_dir, tmp_path / "elsewhere")
    with RunFolder.open(kept) as folder:
        Resumed(folder, {"data_dir": str(elsewhere)}).trainer().fit()
    last = [Checkpoint.load(path / "last.safetensors").model for path in (tmp_path / "whole", kept)]
    assert all(np.array_equal(last[0][key], last[1][key]) for key in last[0])


def test_a_page_without_a_place_for_it(readme):
    readme.write_text("nothing\n")
    with pytest.raises(SystemExit, match="has no lines"):
        accuracy.page()
