"""Where the output of a command goes: a closed pipe, a pseudo-terminal; and what is printed to be copied."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minires.training import Checkpoint, Recipe, RunFolder, read_metrics

ROOT = Path(__file__).parents[2]
MINIRES = [sys.executable, "-c", "from minires.cli import main; main()"]


def closing(command, lines):
    """Run a command whose output is read for some lines only, as by ``head``: (exit code, lines, standard error)."""
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    read = [process.stdout.readline() for _ in range(lines)]
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    return process.wait(timeout=60), read, err


def test_a_run_whose_output_is_read_no_more_is_saved_and_says_so(minires, small_run, tmp_path, page):
    run = tmp_path / "run"
    code, read, err = closing([*MINIRES, *small_run, "--epochs", 1000, "--out", run], 8)
    assert read[-1].split()[0] == "1/1000"
    assert code == 2
    page(err)
    info = Checkpoint.load(run / "last.safetensors").info
    assert info["epoch"] == len(read_metrics(run / "metrics.jsonl")) >= 1
    assert f"after epoch {info['epoch']}" in err
    assert shlex.split(err.partition("go on with: ")[2])[1:] == ["train", "--resume", str(run)]
    with RunFolder.open(run):  # and the lock is let go
        pass


def test_a_sweep_whose_output_is_read_no_more_ends(cifar, tmp_path):
    """It does not train the runs that are left unseen."""
    words = ["sweep", "--dataset", "cifar10", "--data-dir", cifar, "--set", "model=resnet8", "--set", "epochs=1000"]
    code, read, err = closing([*MINIRES, *words, "--seeds", "0-2", "--threads", 1, "--out", tmp_path / "out"], 10)
    assert any(line.split()[0].endswith("/1000") for line in read if line.strip())
    assert code == 2
    assert "standard output was closed" in err
    assert len(list(tmp_path.rglob("config.toml"))) == 1


def test_steps_of_an_epoch_are_saved_too(small_run, tmp_path):
    """The lines of progress within an epoch fail as well."""
    run = tmp_path / "run"
    always = "import time; from minires.cli import display, main; display.PLAIN_EVERY = 0.0\n"
    always += "from minires.training import Recorder; Recorder.on_step = lambda *args: time.sleep(0.05); main()"
    options = [*small_run, "--batch-size", 1, "--out", run]
    code, _, err = closing([sys.executable, "-c", always, *options], 9)
    assert code == 2
    found = re.search(r"the run has ended after (\d+) of 40 steps of its first epoch; all of it is saved", err)
    assert found, err
    assert Checkpoint.load(run / "last.safetensors").info["step"] == int(found[1])


def test_a_run_that_is_complete_when_nobody_reads_its_result(small_run, tmp_path, page):
    code, _, err = closing([*MINIRES, *small_run, "--epochs", 1, "--out", tmp_path / "run", "-q"], 0)
    assert code == 2
    page(err)
    assert (tmp_path / "run/summary.json").exists()


def test_other_commands_say_so_too(page):
    code, _, err = closing([*MINIRES, "data", "info"], 0)
    assert code == 2
    page(err)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_the_command_line_has_no_second_display_of_epochs(small_run, tmp_path):
    ours, theirs = os.openpty()
    try:
        command = [*MINIRES, *small_run, "--epochs", "1", "-q", "--out", str(tmp_path / "run")]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
        os.write(theirs, b"end")  # so that there is something to read
        assert (done.returncode, os.read(ours, 1000)) == (0, b"end")
    finally:
        os.close(ours)
        os.close(theirs)


def test_commands_to_paste_are_quoted_and_whole(minires, small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    run = tmp_path / "my $HOME's runs, of which the name is longer than a line"
    out = minires(*small_run, "--epochs", 1, "--out", run)[1]
    [line] = [line for line in out.splitlines() if "minires eval" in line]
    assert shlex.split(line)[2:] == ["minires", "eval", str(run)]
    assert "after 1 epoch," in out
    assert "1 × 3 steps of 16 images, one-cycle, lr 0.4, 1 thread\n" in out


def test_the_display_of_one_step(minires, small_run):
    out = minires(*small_run, "--epochs", 1, "--batch-size", 40, "--out", "run")[1]
    assert "1 × 1 step of 40 images" in out


@pytest.mark.parametrize("option", ["--out", "--resume", "--recipe", "--data-dir"])
def test_an_empty_path_is_no_folder(minires, small_run, tmp_path, option):
    command = small_run if option == "--out" else ["train"]
    code, out, err = minires(*command, option, "")
    assert (code, out) == (2, "")
    assert "a path is needed, not ''" in err
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_put_in(minires, small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    minires(*small_run, "--epochs", 1, "--out", "~/run", "-q")
    assert Recipe.read(tmp_path / "run/config.toml").epochs == 1
    assert minires("train", "--resume", "~/run")[0] == 0
