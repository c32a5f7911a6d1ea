"""`minires replay`: the step that gave a NaN or an Inf, again."""

import re
from pathlib import Path

import pytest

from minires.kernels import reference
from minires.training import Checkpoint

KEPT = {}  # of the first test's run, since all are the same: its files, and what it said


@pytest.fixture
def broken(minires, small_run):
    """A run, in the folder ``run``, that an absurd learning rate has ended; what it said."""
    if not KEPT:
        code, _, err = minires(*small_run, "--lr", "1e30", "--schedule", "constant", "--out", "run", "-q")
        assert code == 2
        KEPT.update({"said": err, "files": {path.name: path.read_bytes() for path in Path("run").iterdir()}})
    Path("run").mkdir(exist_ok=True)
    for name, content in KEPT["files"].items():
        Path("run", name).write_bytes(content)
    return KEPT["said"]


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_it_comes_again_and_says_where(minires, broken, backend, page):
    where = re.search(r"(forward|backward) of (\w+) in (\S+): ", broken)
    for target in ("run", "run/anomaly.safetensors"):
        code, out, err = minires("replay", target, "--backend", backend, "--threads", 1)
        assert (code, err) == (1, "")
        assert re.search(rf"again +step \d+ \(epoch 1\) of resnet8, back end {backend}\n", out)
        assert re.search(r"images +\(\d+, 3, 32, 32\) from -\d\.\d+ to \d\.\d+\n", out)
        assert f"Again: {where[0]}" in out
        page(out)
        assert re.search(rf"\n{where[1]} +{where[2]} +{where[3]} .* (Inf|NaN) *\n\n?Again: ", out)


def test_the_command_is_the_one_that_the_stop_names(minires, broken):
    command = re.search(r"minires (replay .*)\n$", broken)[1]
    assert minires(*command.split())[0] == 1


def test_how_many_operations_are_shown(minires, broken):
    def shown(*options):
        return len(re.findall(r"^(forward|backward) ", minires("replay", "run", *options)[1], re.M))

    assert shown("--steps", 0) == 0
    assert shown("--steps", 2) == 2
    assert 2 < shown() <= 8
    assert shown("--steps", 1000) >= shown()


def test_nothing_is_written(minires, broken):
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    minires("replay", "run")
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_cause_that_is_gone(minires, broken):
    checkpoint = Checkpoint.load("run/anomaly.safetensors")
    for name, array in checkpoint.model.items():
        if name.endswith("weight"):
            checkpoint.model[name] = array * 0
    checkpoint.save("run/anomaly.safetensors")
    code, out, err = minires("replay", "run")
    assert (code, err) == (0, "")
    assert out.endswith("All of it is finite this time.\n")
    assert "backward  conv2d" in re.sub(" +", "  ", out)


def test_a_wrong_kernel_is_told_apart(minires, broken, monkeypatch):
    checkpoint = Checkpoint.load("run/anomaly.safetensors")
    for name, array in checkpoint.model.items():
        if name.endswith("weight"):
            checkpoint.model[name] = array * 0
    checkpoint.save("run/anomaly.safetensors")
    right = reference.conv2d
    monkeypatch.setattr(reference, "conv2d", lambda *args: right(*args) / 0)
    assert minires("replay", "run", "--backend", "numba")[0] == 0
    assert minires("replay", "run", "--backend", "reference")[0] == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], "there is no run nowhere: give the folder of one"),
        (["."], ". holds no anomaly.safetensors: only a run that a NaN or Inf has ended leaves a batch to replay"),
        (["run/other.safetensors"], "run/other.safetensors holds no batch to replay: give the anomaly.safetensors of"),
        (["run", "--steps", "-1"], "steps must be a whole number from 0 up, not -1"),
        (["run", "--backend", "referense"], "unknown back end 'referense' (did you mean reference?)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_in_a_sentence(minires, broken, args, said):
    batch = Checkpoint.load("run/anomaly.safetensors")
    Checkpoint(batch.model, info=batch.info).save("run/other.safetensors")
    code, _, err = minires("replay", *args)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert "Traceback" not in err
