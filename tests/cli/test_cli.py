import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import minires as mr
from minires.cli import selftest
from minires.kernels.compiled import backend as fast


def test_version(minires):
    assert minires("--version") == (0, f"minires {mr.__version__}\n", "")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(minires, args):
    code, out, _ = minires(*args)
    assert code == 0
    for command in ("train", "eval", "doctor", "warmup"):
        assert re.search(rf"\b{command}\b", out)


def test_help_comes_without_numba_and_at_once():
    check = "import sys; sys.argv = ['minires', '--help']\nfrom minires.cli import main\ntry: main()\n"
    check += "except SystemExit: pass\nassert 'numba' not in sys.modules and 'matplotlib' not in sys.modules"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2], check=True, capture_output=True)
    assert time.perf_counter() - began < 5  # about 0.5 s where nothing else runs


def test_eval_of_a_run(minires, small_run):
    minires(*small_run, "--out", "run", "--val", 8, "-q")
    for target in ("run", "run/last.safetensors", "run/best.safetensors"):
        code, out, err = minires("eval", target)
        assert (code, err) == (0, "")
        assert re.search(r"resnet8, 75,290 parameters, after epoch [12], on cifar10", out)
        assert re.search(r"test accuracy \d+\.\d\d % +loss \d\.\d+, 24 images", out)
        assert len(re.findall(r"^(airplane|frog|truck) .* \d+\.\d\d %", out, re.M)) == 3
    accuracy = json.loads(Path("run/summary.json").read_text())["final_test_acc"]
    assert f"test accuracy {100 * accuracy:.2f} %" in minires("eval", "run")[1]


def test_eval_with_data_that_has_moved(minires, small_run, cifar):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q")
    code, _, err = minires("eval", "run", "--data-dir", "elsewhere")
    assert code == 2
    assert "elsewhere does not exist" in err
    assert minires("eval", "run", "--data-dir", cifar, "--threads", 1)[0] == 0


def test_eval_of_another_programs_weights(minires, page):
    save_file({"conv1.weight": np.ones(3)}, "weights.safetensors")
    code, out, err = minires("eval", "weights.safetensors")
    assert (code, out) == (2, "")
    page(err)


def test_doctor_says_what_there_is_and_that_all_is_well(minires):
    code, out, _ = minires("doctor")
    assert code == 0, out
    for name in ("NumPy", "CPU target", "features", "lanes", "threads", "cache folder"):
        assert name.lower() in out.lower()
    assert out.count("✓") >= 15
    assert "✗" not in out
    assert "All is well." in out


def test_doctor_finds_a_wrong_kernel(minires, monkeypatch):
    right = fast.relu
    monkeypatch.setattr(fast, "relu", lambda x: right(x) + np.asarray(1e-3, x.dtype))
    code, out, _ = minires("doctor")
    assert code == 1
    assert re.search(r"✗ ReLU +float32 \d\.\de-\d\d +float64 \d\.\de-\d\d", out)
    assert "cannot be trusted" in out


def test_a_check_that_raises_counts_as_failed(monkeypatch):
    def broken(*args):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(fast, "relu", broken)
    failed = [result for result in selftest.run() if not result.passed]
    assert {result.name for result in failed} >= {"ReLU"}
    assert failed[0].note == "RuntimeError: no such instruction"


def test_warmup_leaves_nothing_to_compile(minires):
    code, out, err = minires("warmup")
    assert (code, err) == (0, "")
    assert re.match(r"compiled \d+ kernels in|already warm", out)
    code, out, _ = minires("warmup")
    assert out.startswith("already warm: nothing to compile")
    assert "kept in" in out


def test_a_kernel_of_nan_is_not_exact(monkeypatch):
    monkeypatch.setattr(fast, "relu_grad", lambda y, dy: np.full_like(dy, np.nan))
    result = selftest._check("ReLU", lambda: selftest._differences(lambda x: x.relu(), [(2, 3, 4, 4)]))
    assert not result.passed
    assert "exact" not in result.note
