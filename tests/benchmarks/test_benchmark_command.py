"""``python -m benchmarks``: choosing, keeping, printing again, and what it says about mistakes."""

import json
import subprocess
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.cases import TRAIN, Case
from benchmarks.settings import Settings
from benchmarks.turns import ROOT, PeerError


@pytest.fixture
def parts(monkeypatch):
    """Parts that take no time; ``memory`` fails."""
    seen = []

    def steps(settings):
        seen.append(settings)
        seconds = {"minires": [[0.01]], "PyTorch NCHW": [[0.02]]}
        case = {"model": "resnet20", "batch": 128, "threads": settings.threads, "seconds": seconds, "missing": {}}
        return {"job": "train", "cases": [case]}

    def fails(settings):
        raise PeerError("minires stopped with exit code 1: why")

    monkeypatch.setattr(command, "PARTS", {"train": steps, "memory": fails, "startup": lambda settings: {"rows": {}}})
    return seen


def test_what_is_named_runs_and_is_printed(parts, capsys):
    assert command.main(["train", "--threads", "3", "--quick", "--rounds", "7"]) == 0
    out = capsys.readouterr().out
    assert "### Training step\n" in out
    assert "| resnet20, batch 128, 3 threads | **10.0** | 20.0 | **2.00 ×** |" in out
    assert "### Beginning" not in out
    assert parts == [Settings(threads=3, rounds=7, steps=2, many=20, quick=True)]


def test_busy_processes_are_in_the_record_and_the_title(parts, capsys, tmp_path):
    path = tmp_path / "run.json"
    assert command.main(["train", "--threads", "1", "--busy", "1", "--json", str(path)]) == 0
    assert "### Training step, beside 1 busy process\n" in capsys.readouterr().out
    assert json.loads(path.read_text())["parts"]["train"]["busy"] == 1
    assert [settings.busy for settings in parts] == [1]


@pytest.mark.parametrize("first", [[], ["--busy", "1"]])
def test_a_file_is_not_overwritten_by_a_run_beside_another_number_of_busy_processes(first, parts, capsys, tmp_path):
    path = tmp_path / "run.json"
    train = ["train", "--threads", "1", "--json", str(path)]
    command.main([*train, *first])
    whole = path.read_text()
    with pytest.raises(SystemExit):
        command.main([*train, "--busy", "2"])
    assert "has train with another number of busy processes" in capsys.readouterr().err
    assert path.read_text() == whole
    assert command.main([*train, *first]) == 0  # the same again replaces it
    assert command.main(["startup", "--threads", "1", "--json", str(path), "--busy", "2"]) == 0  # not in it yet


def test_steps_of_a_turn(parts):
    for arguments in ([], ["--quick"], ["--steps", "7"], ["--quick", "--steps", "7"]):
        command.main(["train", "--threads", "1", *arguments])
    assert [(settings.steps, settings.many) for settings in parts] == [(4, 100), (2, 20), (7, 7), (7, 7)]


def test_a_part_that_fails_leaves_the_others(parts, capsys, tmp_path):
    path = tmp_path / "folder" / "run.json"
    assert command.main(["--threads", "1", "--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert "minires stopped with exit code 1: why" in out
    assert out.index("### Training step") < out.index("### Memory") < out.index("### Beginning")
    assert set(json.loads(path.read_text())["parts"]) == {"train", "memory", "startup"}


def test_ctrl_c_keeps_the_parts_before(parts, capsys, tmp_path, monkeypatch):
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setitem(command.PARTS, "memory", interrupted)
    path = tmp_path / "run.json"
    assert command.main(["--threads", "1", "--json", str(path)]) == 130
    printed = capsys.readouterr()
    assert "stopped in memory" in printed.err
    assert "2.00 ×" in printed.out
    assert set(json.loads(path.read_text())["parts"]) == {"train"}


def test_parts_already_in_the_file_stay_and_are_printed_again(parts, capsys, tmp_path):
    path = tmp_path / "run.json"
    command.main(["train", "--threads", "1", "--json", str(path)])
    command.main(["startup", "--threads", "1", "--json", str(path)])
    capsys.readouterr()
    assert command.main(["--from", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2.00 ×" in out
    assert "### Beginning" in out
    assert command.main(["startup", "--from", str(path)]) == 0
    assert "2.00 ×" not in capsys.readouterr().out
    assert len(parts) == 1  # nothing ran again


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "no part trian: choose of train, "),
        (["train", "--cases", "resnet20:many"], "--cases takes MODEL:BATCH"),
        (["train", "--cases", "resnet21:4"], "no model resnet21"),
        (["train", "--cases", "resnet20:0"], "--cases takes MODEL:BATCH"),
        (["train", "--rounds", "0"], "--rounds is a whole number from 1 up, not 0"),
        (["train", "--busy", "0"], "--busy is a whole number from 1 up, not 0"),
        (["train", "--peers", "Torch"], "invalid choice: 'Torch'"),
        (["train", "--roofline", "x.png"], "name it too"),
        (["--from", "nowhere.json"], "nowhere.json is no file of a run"),
    ],
)
def test_mistakes_end_with_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_settings_choose_cases_and_peers():
    everything = Settings(threads=1).choose(TRAIN)
    assert [(case.model, case.batch) for case in everything] == [(case.model, case.batch) for case in TRAIN]
    assert all(case.peers[0] == "minires" for case in everything)
    assert len(Settings(threads=1, quick=True).choose(TRAIN)) == 1
    (case,) = Settings(threads=1, cases=(("resnet8", 4),), peers=("JAX", "PyTorch NCHW")).choose(TRAIN)
    assert case == Case("resnet8", 4, ("minires", "PyTorch NCHW", "JAX"))
    (case,) = Settings(threads=1, cases=(("resnet18", 8),)).choose(TRAIN)
    assert "JAX" not in case.peers  # a part's own case keeps its own peers


def test_help_teaches_by_examples(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    out = capsys.readouterr().out
    assert "examples:\n  python -m benchmarks" in out
    for part in command.PARTS:
        assert f"\n  {part} " in out


@pytest.mark.slow
def test_one_small_run(tmp_path, torch):
    """From the command line to the table, with processes and PyTorch."""
    path = tmp_path / "run.json"
    arguments = ["train", "--cases", "resnet8:2", "--rounds", "2", "--steps", "1", "--threads", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, str(path), "--peers", "PyTorch NCHW"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "as fast as PyTorch's best mode (NCHW" in done.stdout
    assert "round 2 of 2" in done.stderr
    (case,) = json.loads(path.read_text())["parts"]["train"]["result"]["cases"]
    assert case["parameters"] == 75290
    assert [len(times) for times in case["seconds"]["minires"]] == [1, 1]
