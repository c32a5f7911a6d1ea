import re

import numpy as np
import pytest

import minires as mr
from minires.cli import cost
from minires.kernels.runtime.memory_pool import Arena, using
from minires.training import Recipe, build_trainer


def test_memory_grows_with_the_images_as_measured():
    """What is foreseen for 48 images against what a step with 48 images takes, and the bytes of its convolutions' outputs."""
    model = mr.models.resnet8()
    memory = cost.memory_of(model, (3, 32, 32))
    step, arena = mr.RecordedStep(model.train()), Arena()
    x = np.zeros((48, 32, 32, 3), np.float32).transpose(0, 3, 1, 2)
    with using(arena), mr.recording(False):
        step(x, np.zeros(48, np.int64))
    state = 2 * sum(p.data.nbytes for p in model.parameters())
    assert memory.of(48) == pytest.approx(arena.most_used + x.nbytes + state, rel=0.1)
    outputs = 4 * (3 * 16 * 32**2 + 2 * 32 * 16**2 + 2 * 64 * 8**2)  # of seven convolutions, for one image
    assert outputs < memory.per_image < 4 * outputs
    assert memory.most_images(memory.of(100)) in (99, 100)


def test_frozen_parts_take_less_memory():
    models = [mr.models.resnet20(), mr.models.resnet20()]
    mr.training.freeze(models[1], ["stem", "layer1", "layer2"])
    whole, frozen = (cost.memory_of(model, (3, 32, 32)) for model in models)
    assert frozen.per_image < whole.per_image / 2
    assert frozen.fixed < whole.fixed


def test_what_is_free(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3 kB\n")
    monkeypatch.setattr(cost, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cost, "CGROUP", tmp_path)
    assert cost.available_memory() == 3072
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert cost.available_memory() == 1000
    (tmp_path / "memory.stat").write_text("anon 500\nactive_file 100\ninactive_file 900\n")
    assert cost.available_memory() == 1900  # the kernel counts files that it keeps in memory as used
    (tmp_path / "memory.max").write_text("max\n")
    assert cost.available_memory() == 3072
    monkeypatch.setattr(cost, "MEMINFO", tmp_path / "nowhere")
    assert cost.available_memory() is None


def test_dry_run(minires, small_run, tmp_path):
    code, out, err = minires(*small_run, "--dry-run")
    assert (code, err) == (0, "")
    rows = dict(line.strip().split(maxsplit=1) for line in out.splitlines())
    assert rows["model"] == "resnet8, 75,290 parameters, 12,239,488 multiply-adds for an image"
    assert re.match(r"\d+ MB for a step", rows["memory"])
    assert re.match(r"\d+ ms for 16 images", rows["step"])
    assert "for 3 steps and the evaluation of 24 images" in rows["epoch"]
    assert rows["run"].endswith("for 2 epochs, 6 steps")
    assert not list(tmp_path.iterdir())  # nothing is written
    (tmp_path / "small.toml").write_text('dataset = "cifar10"\nsizes = [[16, 0.0], [32, 0.5]]\ntta = "flip"\n')
    code, small, _ = minires(*small_run, "--recipe", "small.toml", "--dry-run")
    assert code == 0
    assert small.splitlines()[0] == out.splitlines()[0]  # the network's work on images of the last epoch


def test_a_batch_has_no_more_images_than_there_are(minires, small_run):
    steps = []
    for batch in (40, 100_000):
        code, out, err = minires(*small_run, "--batch-size", batch, "--dry-run")
        assert (code, err) == (0, "")
        steps.append(re.search(r"memory +(\d+) MB for a step.*step +\d+ ms for (\d+) images", out, re.DOTALL).groups())
    assert steps[0] == steps[1]
    assert steps[0][1] == "40"


def test_memory_is_that_of_the_runs_own_operations(cifar):
    """Operation by operation every intermediate tensor is stored."""
    recipe = Recipe.for_dataset("cifar10", data_dir=str(cifar), model="resnet20", batch_size=16)
    fused, separate = (cost.check_memory(build_trainer(recipe.with_settings(fusion=on))) for on in (True, False))
    assert separate.per_image > 1.3 * fused.per_image


@pytest.mark.parametrize(
    ("unrecorded", "recorded", "found", "calls"),
    [pytest.param(2.0, 3.0, 2.0, 2, id="slow"), pytest.param(0.02, 0.01, 0.01, 2 + 3 + cost.CALLS, id="quick")],
)
def test_steps_are_timed_as_they_will_be(monkeypatch, unrecorded, recorded, found, calls):
    """Recording a step and checking it takes three steps and more: that is left out, and of slow steps it is not done."""
    seconds = []
    monkeypatch.setattr(cost.time, "perf_counter", lambda: sum(seconds))
    timed = cost._time(lambda: lambda: seconds.append(recorded if mr.recording.is_on() else unrecorded))
    assert timed == pytest.approx(found)
    assert len(seconds) == calls


@pytest.mark.parametrize(
    ("free", "said"),
    [
        pytest.param(
            5_000_000,
            r"a step with 40 images takes .* MB of memory, and 5 MB are free here: --batch-size \d+ would fit",
            id="batch",
        ),
        pytest.param(1 << 10, "no batch would fit: choose a smaller network", id="network"),
    ],
)
def test_a_run_that_does_not_fit(minires, small_run, tmp_path, monkeypatch, page, free, said):
    """Of 40 images: a batch has no more than there are."""
    monkeypatch.setattr(cost, "available_memory", lambda: free)
    monkeypatch.setattr(cost, "LARGE", 1000)
    for more in ([], ["--dry-run"]):
        code, _, err = minires(*small_run, "--batch-size", 4000, *more)
        assert code == 2
        assert re.search(said, err)
        page(" ".join(err.removeprefix("error: ").split()))
        assert not (tmp_path / "runs").exists()


def test_the_batch_that_would_fit_does():
    memory = cost.Memory(1000.0, 10.0)
    assert memory.most_images(1999) == 99
    assert memory.of(memory.most_images(1999)) <= 1999
    assert memory.most_images(5) == 0


def test_dry_run_of_a_run_that_is_there(minires):
    code, _, err = minires("train", "--resume", "x", "--dry-run")
    assert (code, "--dry-run is of a new run: leave --resume out" in err) == (2, True)
