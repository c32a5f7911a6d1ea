"""`minires lab`: the list, an experiment from question to verdict, what it keeps, and bad input."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from minires.lab import catalogue

QUICK = ("--model", "resnet8", "--width", "4", "--image-size", "16", "--batch-size", "4", "--quick")


def test_the_list(minires):
    code, out, err = minires("lab")
    assert (code, err) == (0, "")
    for name, experiment in catalogue.EXPERIMENTS.items():
        assert name in out
        assert experiment.about.summary in out


FAST = ("split",)  # the others take more than a second


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in catalogue.EXPERIMENTS]
)
def test_an_experiment(minires, tmp_path, name):
    model = "plain8" if name == "construct" else "resnet8"
    given = [model if word == "resnet8" else word for word in QUICK]
    if name == "shatter":  # which builds networks of its own
        given = ["--quick"]
    code, out, err = minires("lab", name, *given, "--out", str(tmp_path / "kept"))
    assert (code, err) == (0, "")
    about = catalogue.EXPERIMENTS[name].about
    assert out.index("Before you look: ") < out.index(about.question) < out.index("The rule: ")
    assert re.search(r"^(seen|not seen|unclear): ", out, re.MULTILINE)
    text = (tmp_path / "kept" / "result.json").read_text("utf-8")
    result = catalogue.read(text)
    if name != "shatter":
        assert result.settings["model"] == model
        assert result.settings["width"] == 4
    assert result.verdict.because in out
    assert (tmp_path / "kept" / "picture.png").read_bytes().startswith(b"\x89PNG")

    code, out, err = minires("lab", name, *given, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(text)
    assert about.question in err


@pytest.mark.slow
def test_all_of_them(minires):
    code, out, err = minires("lab", "all", "--quick", "--out", "kept")
    assert (code, err) == (0, "")
    for name in catalogue.EXPERIMENTS:
        assert re.search(rf"^{name} +(seen|not seen|unclear) +\d", out, re.MULTILINE)
        assert catalogue.read(Path("kept", name, "result.json").read_text("utf-8")).settings["quick"]


def test_a_trained_run(minires, small_run):
    code, _, err = minires(*small_run, "--model-option", "width=4", "--out", "run")
    assert code == 0, err
    code, out, err = minires("lab", "refine", "--run", "run", "--batch-size", "8", "--eval", "--json")
    assert code == 0, err
    settings = json.loads(out)["settings"]
    assert settings["run"] == "run"
    assert settings["model"] == "resnet8"  # the run's, and not what --model is by default
    assert settings["dataset"] == "cifar10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "There is no command 'nothing'. See `minires lab --help`"),
        (("paths", "--model", "resnet9"), "unknown model 'resnet9'"),
        (("paths", "--model", "plain8"), "has no residual addition"),
        (("split", "--model", "plain8"), "has no residual addition"),
        (("paths", "--model", "resnet8", "--at", "layer9"), "no place 'layer9'"),
        (("paths", "--model", "resnet18", "--width", "4"), "resnet18 has no width"),
        (
            ("split", "--model", "resnet8", "--model-option", "option=Q"),
            "option is 'A' .zero channels., 'B' .projection.",
        ),
        (("split", "--model", "resnet8", "--model-option", "colour=1"), "resnet8 has no option 'colour'"),
        (("split", "--model", "resnet8", "--model-option", "option"), "--model-option takes NAME=VALUE"),
        (("identity", "--model-option", "option=B"), "compares networks with all options: it takes no --model-option"),
        (("paths", "--image-size", "5"), "can be averaged to a divisor of 32"),
        (("paths", "--batch-size", "0"), "batch_size must be a whole number from 2"),
        (("paths", "--run", "no/such/run"), "there is no run no/such/run"),
        (("paths", "--dataset", "mnist"), "unknown data set 'mnist'"),
    ],
)
def test_bad_input(minires, arguments, message):
    code, out, err = minires("lab", *arguments)
    assert code == 2
    assert re.search(message, err)
    assert "Traceback" not in out + err


def test_options_of_the_model(minires):
    code, out, _ = minires(
        "lab", "split", *QUICK, "--model-option", "option=B", "--model-option", "norm=none", "--json"
    )
    assert code == 0
    assert json.loads(out)["settings"]["model_options"] == {"option": "B", "norm": "none"}


def test_a_result_does_not_say_where_the_files_are(minires, cifar):
    where = ("--dataset", "cifar10", "--data-dir", str(cifar))
    code, out, _ = minires("lab", "split", *QUICK, *where, "--json")
    assert code == 0
    assert json.loads(out)["settings"]["dataset"] == "cifar10"
    assert str(cifar.parent) not in out


def test_out_is_no_folder(minires, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = minires("lab", "split", *QUICK, "--out", str(tmp_path / "file"))
    assert code == 2
    assert "is no folder: --out takes the name of one" in err


@pytest.mark.parametrize("words", [["split", *QUICK], ["all", "--quick"]])
def test_out_cannot_be_written_to(minires, tmp_path, monkeypatch, words):
    """This is said before the experiment."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    code, out, err = minires("lab", *words, "--out", str(tmp_path / "new/folder"))
    assert (code, out) == (2, "")
    assert f"new/folder cannot be written to ({tmp_path} is no folder that you may write to)" in " ".join(err.split())


def test_a_result_that_cannot_be_kept_has_been_said(minires, tmp_path, monkeypatch):
    def full(result, out):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(sys.modules["minires.cli.lab"], "_keep", full)  # minires.cli.lab is the group of commands
    code, out, err = minires("lab", "split", *QUICK, "--out", str(tmp_path / "out"))
    assert code == 2
    assert "No space left on device" in err
    assert "The rule:" in out
    code, out, _ = minires("lab", "split", *QUICK, "--out", str(tmp_path / "out"), "--json")
    assert code == 2
    assert json.loads(out)["verdict"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_that_nobody_reads_is_kept(minires, tmp_path, monkeypatch, as_json):
    module = sys.modules["minires.cli.lab"]

    def closed(*args):
        raise BrokenPipeError

    monkeypatch.setattr(module, "print_table", closed)
    monkeypatch.setattr(module.typer, "echo", closed)
    with pytest.raises(BrokenPipeError):
        module._run("split", {"quick": True, "batch_size": 4, "model": "resnet8"}, {}, tmp_path / "out", as_json)
    assert (tmp_path / "out/result.json").exists()


def test_explain(minires, tmp_path):
    code, out, err = minires("explain", "resnet8", "--width", "4", "--plot", str(tmp_path / "net.svg"))
    assert (code, err) == (0, "")
    assert "layer2.0" in out
    assert (tmp_path / "net.svg").stat().st_size > 5000
    code, out, _ = minires("explain", "plain8", "--no-gradient")
    assert code == 0
    assert "no gradient yet" in out
    for arguments, message in [
        (("resnet9",), "unknown model 'resnet9'"),
        (("resnet8", "--plot", "net.txt"), "net.txt is not the name of a picture"),
        (("resnet8", "--batch-size", "0"), "batch_size must be a whole number from 1"),
        (("resnet8", "--image-size", "4000"), "image_size must be a whole number from 1"),
        (("resnet18", "--width", "8"), "resnet18 has no width"),
    ]:
        code, _, err = minires("explain", *arguments)
        assert code == 2
        assert message in err
