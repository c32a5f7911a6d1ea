"""`minires train` and what laptops do to it: signals, full disks, second runs; and `--recipe`."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from minires.training import Checkpoint, Recipe, RunFolder, read_metrics
from minires.training import run as training_run

ROOT = Path(__file__).parents[2]
needs_signals = pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise")


def contents(run):
    """What must be the same of two runs: every byte but the times."""
    found = {p.name: p.read_bytes() for p in Path(run).iterdir() if p.name not in (".lock", "curves.png")}
    rows = read_metrics(Path(run) / "metrics.jsonl")
    found["metrics.jsonl"] = [{**row, "seconds": 0, "images_per_second": 0} for row in rows]
    found["summary.json"] = {**json.loads(found["summary.json"]), "wall_seconds": 0}
    return found


SLOW = """
import time
from minires.training import Recorder
own = Recorder.on_epoch
Recorder.on_epoch = lambda *args: (own(*args), time.sleep(0.2))
"""


def start(*command, slow=False):
    """`minires` in a process of its own. slow: whether it pauses after every epoch."""
    code = (SLOW if slow else "") + "from minires.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def epochs_in(metrics):
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def wait_for_epochs(process, run, count):
    for _ in range(1200):
        if epochs_in(Path(run) / "metrics.jsonl") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise TimeoutError


# --- signals


@cache
def whole(options):
    """What a run with these options holds in the end when nothing stops it: the same for every signal."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(*options, "--out", Path(folder) / "run", "-q")
        assert (process.communicate(timeout=300)[1], process.returncode) == ("", 0)
        return contents(Path(folder) / "run")


@needs_signals
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        pytest.param(signal.SIGINT, 130, "Interrupted", id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, "Stopped by SIGTERM", id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, None, id="SIGKILL"),
    ],
)
def test_a_signal_costs_nothing(minires, small_run, tmp_path, number, code, said, page):
    options = [*small_run, "--epochs", 25, "--val", 8]
    run = tmp_path / "run"
    process = start(*options, "--out", run, slow=True)  # else it might be complete before the signal
    wait_for_epochs(process, run, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    if said:
        end = r"(, \d of 2 steps into the next)?; all of it is saved; go on with: minires train --resume (.*)\n$"
        found = re.search(rf"\n{said} after epoch (\d+){end}", out)
        assert found, out
        page(found[0].strip("\n"))
        assert found[3] == str(run)
        info = Checkpoint.load(run / "last.safetensors").info
        assert info["epoch"] == int(found[1]) == len(read_metrics(run / "metrics.jsonl"))
        assert minires("eval", run)[0] == 0
        assert not (run / "summary.json").exists()
    code, out, err = minires("train", "--resume", run)
    assert (code, err) == (0, "")
    assert out.startswith(f"Going on with {run} after epoch ")
    assert contents(run) == whole(tuple(options))


@needs_signals
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_signals_at_random_moments_cost_nothing(minires, small_run, tmp_path, seed):
    """12 signals or more a seed, each some moment after the start of the process or of the training."""
    dice = random.Random(seed)
    options = [*small_run, "--epochs", 80, "--val", 8]
    assert minires(*options, "--out", "whole", "-q")[0] == 0
    expected = contents("whole")
    sent = finished = 0
    while sent < 12:
        run = tmp_path / f"run{finished}"
        metrics = run / "metrics.jsonl"
        code = None
        while code != 0:
            there = (run / "config.toml").exists()
            rows = epochs_in(metrics)
            process = start("train", "--resume", run, "-q") if there else start(*options, "--out", run, "-q")
            if dice.random() < 0.8:  # in training, else wherever the process is
                while process.poll() is None and epochs_in(metrics) <= rows:
                    time.sleep(0.01)
                time.sleep(dice.uniform(0, 0.7))
            else:
                time.sleep(dice.uniform(0, 2.5))
            if process.poll() is None:
                process.send_signal(dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
                sent += 1
            said = process.communicate(timeout=120)
            code = process.returncode
            assert code != 2, said  # nothing that it finds in the folder is wrong
        assert contents(run) == expected
        finished += 1


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_only_the_summary_is_missing(minires, small_run, monkeypatch, number):
    """A run that was killed after its last checkpoint is gone on with, and stopped as it draws the curves."""
    minires(*small_run, "--out", "run", "-q")
    expected = contents("run")
    Path("run/summary.json").unlink()
    draw = training_run.draw_curves

    def interrupted(*args):
        os.kill(os.getpid(), number)
        draw(*args)

    monkeypatch.setattr(training_run, "draw_curves", interrupted)
    assert minires("train", "--resume", "run", "-q")[::2] == (0, "")
    assert contents("run") == expected


# --- full disks


@pytest.mark.parametrize("limit", [0, 100, 2_000, 500_000])
def test_a_full_disk_costs_nothing(minires, small_run, tmp_path, limit, page):
    """The limit is one of the size of a file: what is larger fails in the middle, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code, _, err = minires(*small_run, "--out", "run", "-q")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "File too large" in err
    page(err)
    assert "Traceback" not in err
    assert not list(Path("run").glob("*.tmp"))
    if Path("run/config.toml").exists():
        assert "go on with: minires train --resume run" in err
        assert minires("train", "--resume", "run", "-q")[0] == 0
    else:
        assert "choose a folder that you may write to" in err
        assert minires(*small_run, "--out", "run", "-q")[0] == 0
    minires(*small_run, "--out", "whole", "-q")
    assert contents("run") == contents("whole")


def test_a_disk_that_is_full_for_the_metrics(minires, small_run, monkeypatch, page):
    real = os.fsync

    def full(descriptor):
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        if path.endswith("metrics.jsonl") and epochs_in(Path(path)) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs Linux")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, _, err = minires(*small_run, "--out", "run", "-q")
    assert code == 2
    page(err)
    assert epochs_in(Path("run/metrics.jsonl")) == 1  # no half of a row
    assert minires("train", "--resume", "run", "-q")[0] == 0
    minires(*small_run, "--out", "whole", "-q")
    assert contents("run") == contents("whole")


def test_a_disk_that_is_really_full(minires, small_run, tmp_path, page):
    """A file system in memory that has room for one checkpoint, and not for the next beside it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    try:
        code, _, err = minires(*small_run, "--out", disk / "run", "-q")
        assert code == 2
        page(err)
        assert Checkpoint.load(disk / "run/last.safetensors").info["epoch"] == 1
        assert minires("train", "--resume", disk / "run")[0] == 2  # still full
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert minires("train", "--resume", disk / "run", "-q")[0] == 0
        minires(*small_run, "--out", "whole", "-q")
        assert contents(disk / "run") == contents("whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- two at once


def test_a_second_run_into_a_folder_is_refused(minires, small_run, page):
    recipe = Recipe(dataset="cifar10", data_dir=small_run[-3])
    with RunFolder.create(recipe, "run"):
        for command in ([*small_run, "--out", "run"], ["train", "--resume", "run"]):
            code, out, err = minires(*command)
            assert (code, out) == (2, "")
            page(err)
            assert f"(process {os.getpid()})" in err


@needs_signals
def test_two_processes_at_once(minires, small_run, tmp_path, page):
    run = tmp_path / "run"
    first = start(*small_run, "--epochs", 100_000, "--out", run)
    try:
        wait_for_epochs(first, run, 1)
        code, _, err = minires("train", "--resume", run)
        assert code == 2
        page(err)
        assert f"(process {first.pid})" in err
    finally:
        first.kill()
        first.communicate()
    RunFolder.open(run).close()  # the dead one's is no lock


# --- what --resume takes and what it refuses


@pytest.fixture
def finished(minires, small_run):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q")


def test_a_run_that_is_complete_says_so(minires, finished):
    code, out, _ = minires("train", "--resume", "run")
    assert (code, out) == (0, "run is complete after 1 epoch; to train it longer, say --more-epochs N.\n")


def test_the_options_that_a_run_was_begun_with_may_be_said_again(minires, small_run):
    """Those that are entries of its recipe's tables too."""
    Path("my.toml").write_text('dataset = "cifar10"\n[lr_factors]\nbiases = 2.0\n')
    own = ["--lr-factor", "head=3"]
    assert minires(*small_run, "--recipe", "my.toml", *own, "--out", "run", "-q")[0] == 0
    assert Recipe.read("run/config.toml").lr_factors == {"biases": 2.0, "head": 3}
    assert "is complete" in minires("train", "--resume", "run", *own)[1]
    assert "lr_factors is" in minires("train", "--resume", "run", "--lr-factor", "head=4")[2]


@pytest.mark.parametrize("said", [["--more-epochs", 1], ["--epochs", 2]], ids=["more", "all"])
def test_more_epochs(minires, finished, said):
    code, out, _ = minires("train", "--resume", "run", *said)
    assert code == 0
    assert "Going on with run after epoch 1." in out
    assert len(read_metrics("run/metrics.jsonl")) == Recipe.read("run/config.toml").epochs == 2


@needs_signals
def test_more_epochs_are_not_added_twice(minires, small_run, finished, page):
    process = start("train", "--resume", Path("run").absolute(), "--more-epochs", 1000)
    wait_for_epochs(process, "run", 2)
    process.kill()
    process.communicate()
    code, _, err = minires("train", "--resume", "run", "--more-epochs", 1000)
    assert code == 2
    page(err)
    assert Recipe.read("run/config.toml").epochs == 1001


REFUSED = [
    (["--lr", "0.3"], "run was begun with other settings (lr is 0.4 there, not 0.3): leave these options out"),
    (["--no-augment"], "crop is 4 there, not 0, flip is True there, not False"),
    (
        ["--no-winograd"],
        "run was begun with other settings (winograd is True there, not False): leave these options out",
    ),
    (["--no-fusion"], "run was begun with other settings (fusion is True there, not False): leave these options out"),
    (["--more-epochs", "0"], "--more-epochs is a whole number from 1 up, not 0"),
    (["--out", "other"], "--resume goes on in the run's folder with the run's settings: leave --out out"),
    (["--recipe", "run"], "leave --recipe out"),
    (["--more-epochs", "1", "--data-dir", "nowhere"], "nowhere does not exist"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_what_resume_refuses(minires, finished, options, said, page):
    before = {p.name: p.read_bytes() for p in Path("run").iterdir()}
    code, _, err = minires("train", "--resume", "run", *options)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    page(err)
    assert {p.name: p.read_bytes() for p in Path("run").iterdir()} == before


# --- recipes


def test_a_run_is_done_again_from_its_config(minires, small_run):
    options = ["--schedule", "cosine", "--warmup", "0.2", "--model-option", "option=B", "--val", "4", "--cutout", "3"]
    minires(*small_run, *options, "--out", "run", "-q")
    for recipe in ("run", "run/config.toml"):
        again = recipe.replace("/", "-") + "-again"
        assert minires("train", "--recipe", recipe, "--out", again, "-q")[0] == 0
        assert contents(again) == contents("run")


def test_options_win_over_the_recipe_and_the_recipe_over_the_dataset(minires, small_run, cifar):
    Path("my").mkdir()
    data = os.path.relpath(cifar, "my")  # seen from where the recipe is
    Path("my/recipe.toml").write_text(
        f'dataset = "cifar10"\ndata_dir = "{data}"\nlr = 0.2\nepochs = 3\nmodel = "resnet8"\n'
    )
    assert minires("train", "--recipe", "my/recipe.toml", "--epochs", 1, "--out", "run", "-q")[0] == 0
    recipe = Recipe.read("run/config.toml")
    assert (recipe.epochs, recipe.lr, recipe.model, recipe.crop) == (1, 0.2, "resnet8", 4)
    assert Path(recipe.data_dir).resolve() == cifar.resolve()


# --- NaN and Inf


def test_a_learning_rate_far_too_high_is_explained(minires, small_run, page):
    code, _, err = minires(*small_run, "--lr", "1e30", "--schedule", "constant", "--out", "run", "-q")
    assert code == 2
    assert re.match(
        r"error: in step \d+ \(epoch \d\) the (loss|gradient of \S+) is .* (forward|backward) of \w+ in ", err
    )
    page(err)
    assert "Traceback" not in err
