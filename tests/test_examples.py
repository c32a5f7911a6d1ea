"""The scripts in examples/, run as a reader runs them, in processes of their own."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path):
    """A function: runs a script in an empty folder, which stays empty; what it printed."""

    def call(script, *args):
        # this checkout, not another one
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / script, *map(str, args)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1", "NUMBA_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert process.returncode == 0, process.stderr
        assert not list(tmp_path.iterdir())
        return process.stdout

    return call


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e[+-]\d+)?", text)]


def test_shortcut_gradient(run):
    out = run("shortcut_gradient.py")
    hand, tape = (numbers(re.search(f"by {who} .*", out).group()) for who in ("hand", "the tape"))
    assert len(hand) == 3
    assert hand == pytest.approx(tape, rel=1e-12)

    rows = [numbers(line) for line in out.splitlines() if re.match(r" +\d\.\d\d  ", line)]
    scales, shortcut, through_F, both, difference = zip(*rows)
    assert scales == (1, 0.1, 0.01, 0)
    assert max(difference) < 1e-13
    assert len(set(shortcut)) == 1  # the first term does not care about the weights
    assert through_F == pytest.approx([through_F[0] * s for s in scales], abs=1e-4)
    assert both[-1] == shortcut[-1]  # of F = 0, nothing but the shortcut


def test_write_an_op(run):
    out = run("write_an_op.py")
    x, y = numbers(re.search(r"softplus of .*? is [\d.]+", out).group())
    assert y == pytest.approx(math.log1p(math.exp(x)), abs=1e-4)
    assert re.findall(r"(\w+) (passed|FAILED): 12 numbers", out) == [
        ("Softplus", "passed"),
        ("ForgotDy", "FAILED"),
        ("WrongBelowZero", "FAILED"),
    ]
    named = re.findall(r"first wrong operation on the way back is (\w+)", out)
    assert named == ["forgotdy", "wrongbelowzero"]


def test_plain_against_residual(run):
    out = run("plain_against_residual.py", "--depth", 20, "--steps", 4)
    plain, residual = zip(*[numbers(line) for line in out.splitlines() if re.match(r" +\d+  ", line)])
    assert len(plain) == 9
    growth = numbers(re.search(r"by .* in preplain20\n.*by .* in preresnet20", out).group())
    # two digits are printed
    assert growth == pytest.approx([plain[0] / plain[-1], residual[0] / residual[-1]], rel=0.15)
    assert growth[0] > growth[1] > 1
    losses = [numbers(line) for line in re.findall(r"^pre.*20 .*\d$", out, re.M)]
    assert all(1 < loss < 4 for line in losses for loss in line)
    assert [len(line) for line in losses] == [2, 2]


def test_training_loop(run):
    assert len((EXAMPLES / "training_loop.py").read_text(encoding="utf-8").splitlines()) <= 40
    (first_loss, _), (loss, accuracy) = map(numbers, run("training_loop.py", 2, 1600).splitlines())
    assert loss < first_loss
    assert loss < math.log(10)
    assert accuracy > 13  # per cent; guessing has 10


def test_segmentation(run, tmp_path_factory):
    picture = tmp_path_factory.mktemp("pictures") / "segmentation.png"
    out = run("segmentation.py", "--epochs", 3, "--images", 160, "--output-stride", 2, "--plot", picture)
    assert "layer3 64 channels at stride 2" in out
    before, after = (numbers(line)[0] for line in re.findall(r"^mean IoU .*", out, re.M))
    losses = [numbers(line)[0] for line in re.findall(r"^epoch .*", out, re.M)]
    assert losses[-1] < losses[0] < math.log(4)
    assert after > max(before, 0.2)  # a background everywhere has 0.2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_readme_lists_every_example():
    listed = re.findall(r"^\d+\. \[`(\w+\.py)`\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize(
    ("options", "tuned_is_better"),
    [(["--steps", 4, "--epochs", 1], False), pytest.param([], True, marks=pytest.mark.slow)],
)
def test_fine_tuning(run, options, tuned_is_better):
    _, loaded, tuned, scratch = run("fine_tuning.py", *options).splitlines()
    assert "42 arrays are those of the first network, fc.weight, fc.bias are new" in loaded
    (tuned,), (scratch,) = ([float(n) for n in re.findall(r"([\d.]+)%", line)] for line in (tuned, scratch))
    if tuned_is_better:
        assert tuned > 95 > scratch + 10
