import json
import re
from pathlib import Path

import numpy as np
import pytest

from minires.cli.gradcheck import PLOT_POINTS
from minires.cli.help import GRADCHECK
from minires.gradcheck.cases import check, select
from minires.kernels import reference
from minires.kernels.compiled import backend as fast
from minires.ops import reduction

QUICK = ["relu", "max", "mean"]


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_named_operations(minires, backend):
    code, out, err = minires("gradcheck", *QUICK, "--backend", backend)
    assert (code, err) == (0, "")
    assert f"back end {backend}" in out
    assert re.search(r"✓  relu: at 0 +3 .* agree, 1 at a kink", out)
    assert re.search(r"✓  max: a tie +3 .* kinks only \(2\)", out)
    assert "backward gives 0, between the slopes 0 and" in out
    assert "kink: between x − h and x + h the function has a corner" in out
    assert re.search(r"Nothing is wrong: \d+ numbers were compared", out)
    assert "conv2d" not in out


def test_all_operations(minires):
    code, out, _ = minires("gradcheck", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["passed"] is True
    assert len(found["checks"]) > 80
    assert sum(check["compared"] for check in found["checks"]) > 5000
    assert {"SGD: Nesterov", "fan-out: three uses"} < {check["name"] for check in found["checks"]}


def test_a_mistake_is_exit_code_1_and_named(minires, monkeypatch):
    monkeypatch.setattr(reduction.Mean, "backward", lambda self, dy, needs: (self.spread(dy),))
    code, out, err = minires("gradcheck", *QUICK)
    assert (code, err) == (1, "")
    assert re.search(r"✗  mean: all .* WRONG", out)
    assert "✗ mean: all: input 0, element [0, 0]: analytic " in out
    assert "The first wrong operation on the way back is mean" in out
    assert out.rstrip().endswith("2 of 7 checks failed: mean.")
    code, out, _ = minires("gradcheck", *QUICK, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["passed"] is False
    assert [c["name"] for c in found["checks"] if not c["passed"]] == ["mean: all", "mean: height and width"]


@pytest.mark.parametrize(("backend", "module"), [("numba", fast), ("reference", reference)])
def test_the_back_end_asked_for_is_the_one_that_is_checked(minires, monkeypatch, backend, module):
    monkeypatch.setattr(module, "relu_grad", lambda dy, y: dy * 1.01 * (y > 0))
    other = {"numba": "reference", "reference": "numba"}[backend]
    assert minires("gradcheck", "relu", "--backend", backend)[0] == 1
    assert minires("gradcheck", "relu", "--backend", other)[0] == 0


def test_a_model(minires):
    code, out, err = minires("gradcheck", "--model", "resnet8", "--directions", 1)
    assert (code, err) == (0, "")
    assert re.search(r"✓  layer2\.0\.bn1\.weight +32 +1 +\d", out)
    assert re.search(r"✓  input 0 +3×3×8×8", out)
    assert "note: " not in out
    assert "Nothing is wrong: 24 numbers" in out


def test_a_model_in_evaluation_mode_as_json(minires):
    code, out, _ = minires(
        "gradcheck", "--model", "plain8", "--eval", "--directions", 1, "--image-size", 6, "--batch-size", 2, "--json"
    )
    assert code == 0
    (check,) = json.loads(out)["checks"]
    assert check["name"] == "plain8"
    assert check["checked"][-1]["shape"] == [2, 3, 6, 6]


def test_a_model_with_a_mistake_names_the_module(minires, monkeypatch):
    right = reference.conv2d_weight_grad
    monkeypatch.setattr(reference, "conv2d_weight_grad", lambda *args: right(*args)[:, ::-1])
    code, out, _ = minires("gradcheck", "--model", "resnet8", "--directions", 1, "--backend", "reference")
    assert code == 1
    assert re.search(
        r"✗ resnet8: layer3\.0\.conv2\.weight\[\d+, \d+, \d+, \d+\]: analytic \S+, numeric \S+, relative", out
    )
    assert "The first wrong module on the way back is layer3.0.conv2 (Conv2d). The first wrong operation" in out
    assert out.rstrip().endswith("the gradient is wrong: resnet8.")


@pytest.mark.parametrize("name", ["steps.png", "steps.svg", "steps.PDF"])
def test_a_plot(minires, name):
    code, out, _ = minires("gradcheck", *QUICK, "--plot", name)
    assert code == 0
    assert f"error against step: {name}" in out
    content = Path(name).read_bytes()
    assert len(content) > 5000
    assert content[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_a_vacuous_check_is_marked(minires, monkeypatch):
    from minires.gradcheck import cases

    constant = cases.Case("sums to 1", lambda x: x.softmax(1).sum(1), (np.eye(3),))
    monkeypatch.setitem(cases.CASES, "softmax", [constant])
    code, out, _ = minires("gradcheck", "softmax")
    assert code == 0
    assert re.search(r"○  softmax: sums to 1 +9 +0e\+00 .* vacuous", out)
    assert "vacuous: the true gradient is 0 everywhere" in out


def test_the_example_of_a_plot_shows_a_valley():
    """Large steps err by curvature (h²), small ones by rounding (1/h): the plot of the example in --help has both slopes."""
    [name] = re.findall(r"`minires gradcheck (\w+) --plot", GRADCHECK)
    [result] = [check(name, case, sweep_points=PLOT_POINTS) for name, case in select([name])]
    [checked] = result.checked
    h, error, _ = (np.array(column, float) for column in zip(*sorted(checked.sweep)))
    log_h, log_error = np.log(h), np.log(np.abs(error))
    large = h > 1e-4
    assert large.sum() > 5
    assert np.polyfit(log_h[large], log_error[large], 1)[0] == pytest.approx(2, abs=0.1)
    small = h < 1e-6
    assert small.sum() > 5
    assert np.polyfit(log_h[small], log_error[small], 1)[0] == pytest.approx(-1, abs=0.4)
