import json
import os
import re
import signal

import numpy as np
import pytest

from minires.cli import tables
from minires.training import Callback, Checkpoint, Recipe, Recorder, RunFolder, build_trainer, compare, read_metrics
from minires.training import run as training_run


@pytest.fixture
def small(cifar):
    """The words of a sweep that is a matter of seconds."""
    return ["sweep", "--dataset", "cifar10", "--data-dir", cifar, "--set", "model=resnet8", "--set", "epochs=2"]


def test_trains_all_runs_and_prints_their_means(minires, small, tmp_path):
    words = [*small, "--set", "lr=0.01,0.1", "--set", "val=8", "--seeds", "0-1", "--out", "out", "--threads", 1]
    code, out, err = minires(*words)
    assert (code, err) == (0, "")
    runs = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    assert [str(run.relative_to(tmp_path / "out/model=resnet8/epochs=2")) for run in runs] == [
        f"lr={lr}/val=8/seed-{seed}" for lr in ("0.01", "0.1") for seed in (0, 1)
    ]
    recipe = Recipe.read(runs[-1] / "config.toml")
    assert (recipe.lr, recipe.seed, recipe.epochs, recipe.val) == (0.1, 1, 2, 8)
    last = [read_metrics(run / "metrics.jsonl")[-1]["test_acc"] for run in runs[2:]]
    row = next(line for line in out.splitlines() if re.match(r"resnet8 +2 +0.1 ", line))
    assert f"{100 * sum(last) / 2:.2f} ± " in row
    assert "Choose by val acc" in out

    before = [(run / "last.safetensors").read_bytes() for run in runs]
    code, out, _ = minires(*words)
    assert code == 0
    assert out.count("is complete") == 4
    assert [(run / "last.safetensors").read_bytes() for run in runs] == before
    code, _, err = minires(*words, "--recipe", "long")
    assert code == 2
    assert "was trained with other settings" in err


def test_goes_on_with_a_run_that_was_stopped(minires, small, tmp_path):
    words = [*small, "--seeds", "0", "--threads", 1]
    assert minires(*words, "--out", "whole")[0] == 0
    recipe = Recipe.read(tmp_path / "whole/model=resnet8/epochs=2/seed-0/config.toml")
    with RunFolder.create(recipe, tmp_path / "stopped/model=resnet8/epochs=2/seed-0") as folder:
        trainer = build_trainer(recipe)
        first = Callback()
        first.on_step = lambda trainer, mean: trainer.stop()
        trainer.callbacks = (Recorder(folder, recipe), first)
        trainer.fit()
    assert not trainer.finished
    code, out, _ = minires(*words, "--out", "stopped")
    assert code == 0
    assert "Going on with stopped/model=resnet8/epochs=2/seed-0" in out
    run = "model=resnet8/epochs=2/seed-0/last.safetensors"
    models = [Checkpoint.load(tmp_path / name / run).model for name in ("whole", "stopped")]
    assert all((models[0][name] == models[1][name]).all() for name in models[0])


def test_a_stopped_run_of_other_settings_is_not_gone_on_with(minires, small, tmp_path, page):
    """Nor where the setting is one that is no longer given."""
    (tmp_path / "my.toml").write_text('dataset = "cifar10"\nerror_warmup = 0.1\n')
    words = [*small, "--recipe", "my.toml", "--seeds", "0", "--threads", 1, "--out", "out"]
    assert minires(*words)[0] == 0
    run = tmp_path / "out/model=resnet8/epochs=2/seed-0"
    (run / "summary.json").unlink()
    (tmp_path / "my.toml").write_text('dataset = "cifar10"\n')
    code, _, err = minires(*words)
    assert code == 2
    assert "was trained with other settings (error_warmup is 0.1 there, not None)" in err
    assert not (run / "summary.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise")
@pytest.mark.parametrize("seeds", [2, 1])
def test_a_signal_as_a_run_ends_stops_the_sweep(minires, small, tmp_path, monkeypatch, seeds):
    """The run is complete, and the next does not begin. After the last one there is nothing to stop."""
    draw = training_run.draw_curves

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        draw(*args)

    monkeypatch.setattr(training_run, "draw_curves", interrupted)
    words = [*small, "--seeds", f"0-{seeds - 1}", "--threads", 1, "--out", "out"]
    code, out, err = minires(*words)
    assert (code, err) == (143 if seeds > 1 else 0, "")
    assert ("To train the runs that are left too" in out) == (seeds > 1)
    assert len(list(tmp_path.rglob("summary.json"))) == 1


def test_a_table_that_nobody_reads(minires, small, monkeypatch):
    """The reader goes after the last run, whose trainer there is no more reason to stop."""
    monkeypatch.setattr(tables, "print_table", lambda console, *rest: console.on_broken_pipe())
    code, _, err = minires(*small, "--seeds", "0", "--threads", 1, "--out", "out")
    assert code == 2
    assert "standard output was closed" in err


def test_a_run_that_diverges_does_not_end_the_sweep(minires, small):
    code, out, _ = minires(*small, "--set", "lr=1e25,0.1", "--seeds", "0", "--threads", 1, "--out", "out")
    assert code == 1
    assert re.search(r"error: .*(is nan|not finite)", out)
    rows = {line.split()[2]: line.split() for line in out.splitlines() if line.startswith("resnet8")}
    assert rows["1e+25"][3:6] == ["0", "of", "1"]
    assert rows["0.1"][3] == "1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "lr"), "--set takes NAME=VALUE,VALUE…, such as lr=0.1,0.2, not 'lr'"),
        (("--set", "learning_rate=1"), "a sweep over 'learning_rate': unknown setting"),
        (("--set", "seed=1,2"), "a sweep over 'seed': seeds are given by --seeds"),
        (("--seeds", "x"), "--seeds takes whole numbers such as 0,1,2 or 0-2, not 'x'"),
        (("--recipe", "he2016"), "there is no recipe 'he2016' (did you mean he2015?)"),
    ],
)
def test_bad_input(minires, words, message, tmp_path):
    code, _, err = minires("sweep", *words)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_compare(minires, small, tmp_path):
    assert minires(*small, "--seeds", "0,1", "--threads", 1, "--out", "out", "--quiet")[0] == 0
    run = tmp_path / "out/model=resnet8/epochs=2/seed-0"
    code, out, err = minires("compare", run, "out", "--plot", "both.svg")
    assert (code, err) == (0, "")
    heads, first, second, drawn = out.splitlines()
    assert heads.split() == ["run", "seed", "epochs", "train", "acc", "test", "acc", "minutes"]
    rows = {row.split()[0]: row.split() for row in (first, second)}
    assert set(rows) == {"seed-0", "seed-1"}
    last = read_metrics(run / "metrics.jsonl")[-1]
    assert rows["seed-0"][1:5] == ["0", "2", f"{last['train_acc']:.2%}", f"{last['test_acc']:.2%}"]
    assert drawn == "drawn in both.svg"
    assert (tmp_path / "both.svg").read_text().startswith("<?xml")
    runs = compare.runs_in([run, tmp_path / "out"])
    left, right = compare.draw(runs).axes
    for i, own in enumerate(runs.values()):
        rows = read_metrics(own.metrics)
        np.testing.assert_allclose(left.lines[i].get_ydata(), [row["train_loss"] for row in rows])
        np.testing.assert_allclose(right.lines[i].get_ydata(), [100 * row["test_acc"] for row in rows])
    (run / "metrics.jsonl").write_text('{"epoch": "one", "test_acc": null}\n')  # damaged: no numbers
    code, out, _ = minires("compare", "out")
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("seed-0")).split()[3:5] == ["–", "–"]
    for words, message in (
        (("nowhere",), "there is no folder nowhere"),
        ((tmp_path / "out/model=resnet8/epochs=2/seed-0", "--plot", "x.bmp"), "is not the name of a picture"),
    ):
        code, _, err = minires("compare", *words)
        assert code == 2
        assert message in err
    (tmp_path / "empty").mkdir()
    code, _, err = minires("compare", "empty")
    assert (code, "empty holds no run that has finished an epoch" in err) == (2, True)


def test_epochs_without_an_evaluation(minires, small_run, tmp_path):
    code, out, _ = minires(*small_run, "--epochs", 3, "--eval-every", 2, "--out", "run")
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert (code, ["test_acc" in row for row in rows]) == (0, [False, True, True])
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "/3 " in line}
    assert lines["1/3"][5:7] == ["–", "–"]
    assert f"{100 * rows[1]['test_acc']:.2f}" in lines["2/3"]
    run = compare.runs_in([tmp_path / "run"])
    [line] = compare.draw(run).axes[1].lines
    np.testing.assert_array_equal(line.get_xdata(), [2, 3])
    (tmp_path / "run/metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in (rows[1], rows[0])))
    assert f"{rows[1]['test_acc']:.2%}" in minires("compare", "run")[1]  # the last one that is known
    code, _, err = minires(*small_run, "--eval-every", 0)
    assert (code, "eval_every must be a whole number from 1 up, not 0" in err) == (2, True)


def test_test_time_augmentation_stands_beside_the_plain_accuracy(minires, small_run, tmp_path):
    code, out, _ = minires(*small_run, "--tta", "flip", "--out", "run")
    assert code == 0
    last, summary = (
        read_metrics(tmp_path / "run/metrics.jsonl")[-1],
        json.loads((tmp_path / "run/summary.json").read_text()),
    )
    assert summary["final_test_flip_acc"] == last["test_flip_acc"]
    plain, flip = (f"{100 * last[key]:.2f} %" for key in ("test_acc", "test_flip_acc"))
    assert f"test accuracy {plain}" in out
    assert f"with --tta flip {flip}" in out
    code, out, _ = minires("eval", "run", "--tta", "flip")
    assert code == 0
    assert f"test accuracy {plain}" in out
    assert f"with --tta flip {flip}" in out
    assert "--tta" not in minires("eval", "run")[1]
    code, _, err = minires("eval", "run", "--tta", "views")
    assert (code, "unknown tta 'views' (did you mean views6?): choose one of none, flip, views6" in err) == (2, True)
