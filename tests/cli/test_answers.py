"""What the command line says: of errors, of the state of a run, and where a machine is odd."""

import errno
import sys

import numpy as np
import pytest
import typer

from minires.cli import errors, selftest
from minires.cli.commands import Commands
from minires.errors import ConfigError
from minires.gradcheck import cases
from minires.kernels.runtime import jit as cache
from minires.kernels.runtime import kernel_cache, precompile
from minires.kernels.runtime.cache_folder import Folders
from minires.training import Trainer


def run(error):
    app = typer.Typer(cls=Commands)

    @app.callback()
    def group():
        pass

    @app.command()
    def command(debug: errors.Debug = False):
        raise error

    return lambda *args: errors.run(app, ["command", *args])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("too few: 3"), 2, "error: too few: 3\n"),
        (MemoryError(), 2, "error: the machine's memory is not enough\n"),
        (
            np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f8")),
            2,
            "memory is not enough: Unable to alloc",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "here/file"), 2, "No space left on device: here/file\n"),
        (OSError(errno.EIO, "Input/output error"), 2, "error: Input/output error\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (KeyboardInterrupt("interrupted at once"), 130, "error: interrupted at once\n"),
        (typer.Abort(), 130, "error: interrupted\n"),
    ],
    ids=repr,
)
def test_an_error_that_a_user_can_cause_is_a_sentence(capsys, monkeypatch, error, code, said):
    monkeypatch.setenv("COLUMNS", "120")
    assert run(error)() == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("a mistake of ours"), OSError("without a number")], ids=repr)
def test_a_mistake_of_minires_own_is_not_hidden(error):
    with pytest.raises(type(error)) as caught:
        run(error)()
    assert caught.value is error


def test_debug_shows_the_traceback():
    with pytest.raises(ConfigError, match="too few"):
        run(ConfigError("too few: 3"))("--debug")


# --- gradcheck


def test_many_kinks_are_counted_and_few_told(minires, monkeypatch):
    monkeypatch.setitem(cases.CASES, "relu", [cases.Case("at 0", lambda x: x.relu(), (np.zeros(9),))])
    code, out, _ = minires("gradcheck", "relu")
    assert code == 0
    assert out.count("kink at relu: at 0, input 0, element ") == 6
    assert "and 3 more kinks (--json has them)" in out


def test_a_promotion_is_told_once(minires, monkeypatch):
    single = [cases.Case(label, lambda x: x.exp(), (np.ones(3, np.float32),)) for label in "ab"]
    monkeypatch.setitem(cases.CASES, "exp", single)
    code, out, _ = minires("gradcheck", "exp")
    assert code == 0
    assert out.count("note: input 0 is float32 and was checked as float64: float32 has too few digits") == 1


# --- training


def test_more_epochs_are_at_least_one(minires, small_run, tmp_path):
    code, out, err = minires("train", "--resume", tmp_path, "--more-epochs", 0)
    assert (code, out) == (2, "")
    assert err == "error: --more-epochs is a whole number from 1 up, not 0\n"


def test_a_run_that_another_version_began_says_so(minires, small_run, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("minires.training.run.__version__", "0.0.9")
        assert minires(*small_run, "--out", tmp_path / "run")[0] == 0
    code, out, _ = minires("train", "--resume", tmp_path / "run", "--more-epochs", 1)
    assert code == 0
    assert "minires 0.0.9 began this run, and this is" in out
    assert "the last bits may differ" in out


def test_a_second_ctrl_c_ends_a_step_in_the_middle_and_says_how_to_go_on(minires, small_run, monkeypatch):
    with monkeypatch.context() as impatient:
        impatient.setattr(Trainer, "fit", lambda self, **_: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, err = minires(*small_run, "--out", "run")
    assert code == 130
    assert err == "error: interrupted at once, in the middle of a step; go on with: minires train --resume run\n"
    code, out, err = minires("train", "--resume", "run")  # there was no checkpoint yet
    assert (code, err) == (0, "")
    assert "Going on with run from the beginning." in out
    assert "after 2 epochs" in out


# --- a machine that is odd


def test_warmup_says_what_it_compiled_and_where_it_is_kept(minires, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "FOLDERS", Folders(tmp_path))
    warmup = sys.modules["minires.cli.warmup"]  # minires.cli.warmup is the command of that name
    monkeypatch.setattr(warmup, "_tasks", lambda: [("a kernel", lambda: cache.compiles.kernels.append("a kernel"))])
    code, out, _ = minires("warmup")
    assert code == 0
    assert out.startswith("compiled 1 kernels in ")
    assert f"kept in {cache.FOLDERS.folder}"[:60] in out.replace("\n", "")
    monkeypatch.setattr(cache, "FOLDERS", Folders())
    assert "kept nowhere, since no cache folder is writable" in minires("warmup")[1].replace("\n", " ")


@pytest.mark.filterwarnings("always:minires cannot write compiled kernels")
def test_warmup_says_what_could_not_be_kept(minires, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "FOLDERS", Folders(tmp_path))
    warmup = sys.modules["minires.cli.warmup"]
    monkeypatch.setattr(kernel_cache, "_warned", set())

    def task():
        kernel_cache._warn_of_folder(tmp_path, OSError(28, "No space left on device"))

    monkeypatch.setattr(warmup, "_tasks", lambda: [("a kernel", task)])
    code, out, err = minires("warmup")
    assert code == 1
    assert "not all of it could be kept" in out
    assert "No space left on device" in err
    assert not precompile.complete()


def test_doctor_where_no_kernel_could_run(minires, monkeypatch):
    monkeypatch.setattr(selftest, "run", lambda: [selftest.Result("convolution", False, "it raised OSError")])
    code, out, _ = minires("doctor")
    assert code == 1
    assert "✗ convolution" in out
    assert "1 of the checks failed" in out
