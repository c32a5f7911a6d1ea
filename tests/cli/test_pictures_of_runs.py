"""The curves of a run do not depend on the back end of Matplotlib that is set, and cannot end the run."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_JUPYTER = "module://matplotlib_inline.backend_inline"  # what a process started from a notebook inherits


def python(code, *args, **environment):
    """Run Python in a process of its own, since Matplotlib reads the environment at import: (exit code, output, errors)."""
    command = [sys.executable, "-c", code, *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


DRAW = """
import os, sys
from minires.figures import new_figure
new_figure(figsize=(1, 1)).savefig(sys.argv[1], format="png")
import matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize("name", [OF_JUPYTER, "no such thing", "svg", "", None])
def test_the_back_end_of_pyplot_is_not_used_and_kept(tmp_path, name):
    environment = {} if name is None else {"MPLBACKEND": name}
    code, out, err = python(DRAW, tmp_path / "a.png", **environment)
    assert (code, err) == (0, "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert out.startswith(f"{name} ")
    assert out.endswith(" svg\n") == (name == "svg")


def test_a_run_that_inherits_the_back_end_of_jupyter_ends_well(small_run, tmp_path):
    command = [*small_run, "--epochs", "1", "--out", tmp_path / "run", "-q"]
    code, _, err = python("from minires.cli import main; main()", *command, MPLBACKEND=OF_JUPYTER)
    assert (code, err) == (0, "")
    assert (tmp_path / "run/curves.png").exists()
    assert (tmp_path / "run/summary.json").exists()


@pytest.mark.filterwarnings("always:minires could not draw")
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), ImportError("no module named kiwisolver"), KeyError("font")],
    ids=lambda error: type(error).__name__,
)
def test_a_picture_that_cannot_be_drawn_is_a_warning(minires, small_run, monkeypatch, error, page):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr("minires.training.curves.new_figure", fail)
    code, out, err = minires(*small_run, "--epochs", 1, "--out", "run")
    assert code == 0
    page(err)
    assert "curves" not in out
    assert Path("run/summary.json").exists()
    assert "run is complete" in minires("train", "--resume", "run")[1]
