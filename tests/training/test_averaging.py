"""Averages of weights, against the formulas written out, and in runs that are stopped and gone on with."""

import numpy as np
import pytest
from runs import begin, contents, go_on
from stop_at import StopAt

import minires as mr
from minires.errors import CheckpointError, RunError
from minires.training import Recipe, load_run
from minires.training.averaging import EMA, Lookahead
from minires.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("small_runs")
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, val=8, tta="flip")


def walk(model, rng):
    """Another set of weights, as a step of training would make it."""
    for p in model.parameters():
        if p.requires_grad:
            p.data += rng.standard_normal(p.shape).astype(p.dtype)


def test_ema_is_the_sum_written_out():
    rng, model = np.random.default_rng(0), mr.nn.Linear(3, 2)
    ema, history = EMA(model, decay=0.9), [model.weight.data.copy()]
    for _ in range(30):
        walk(model, rng)
        ema.step(0.5)
        history.append(model.weight.data.copy())
    expected = history[0].astype(np.float64)
    for t, w in enumerate(history[1:], 1):
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * w
    np.testing.assert_allclose(ema.arrays["weight"], expected, rtol=1e-5)
    np.testing.assert_array_equal(model.weight.data, history[-1])
    with ema.exchanged():
        np.testing.assert_allclose(model.weight.data, expected, rtol=1e-5)
        np.testing.assert_array_equal(ema.arrays["weight"], history[-1])
    np.testing.assert_array_equal(model.weight.data, history[-1])


def test_lookahead_pulls_the_weights_back_every_few_steps():
    rng, model = np.random.default_rng(0), mr.nn.Linear(3, 2)
    lookahead, slow = Lookahead(model, decay=0.95, every=2), model.weight.data.astype(np.float64)
    for t in range(1, 8):
        walk(model, rng)
        moved = model.weight.data.copy()
        lookahead.step(t / 7)
        if t == 7:
            np.testing.assert_allclose(model.weight.data, slow, rtol=1e-5)  # at the end the average is what is left
        elif t % 2:
            np.testing.assert_array_equal(model.weight.data, moved)
        else:
            slow = slow + (1 - 0.95**2 * (t / 7) ** 3) * (moved - slow)
            np.testing.assert_allclose(model.weight.data, slow, rtol=1e-5)


def test_what_is_averaged():
    model = mr.models.create("whitened_resnet11", width1=4, width2=4, width3=4)
    names = set(EMA(model).arrays)
    assert {"stage1.norm1.running_var", "stage1.conv1.weight", "whitening.bias"} <= names
    assert not {"whitening.weight", "stage1.norm1.weight", "stage1.norm1.num_batches_tracked"} & names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.mark.parametrize("stop", [{"step": 4}, {"epoch": 2}], ids=str)
@pytest.mark.parametrize(("average", "optimizer"), [("ema", "muon"), ("lookahead", "adamw")])
def test_a_stop_costs_nothing(tmp_path, whole, average, optimizer, stop):
    recipe = RECIPE.with_settings(average=average, optimizer=optimizer, alternate=True)
    name = f"{average}-{optimizer}"
    if not (whole / name).exists():
        begin(whole / name, recipe)
    begin(tmp_path / "run", recipe, StopAt(**stop))
    resumed = go_on(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole / name)
    assert {"test_acc", "test_flip_acc", "val_flip_acc"} <= set(resumed.history[-1])
    assert "test_flip_acc" not in resumed.history[0]


def test_a_run_predicts_with_its_average(tmp_path):
    trainer = begin(tmp_path / "run", RECIPE.with_settings(average="ema"))
    _, model, _ = load_run(tmp_path / "run")
    average = trainer.average
    for name, array in model.state_dict().items():
        if name in average.arrays:
            np.testing.assert_array_equal(array, average.arrays[name])
    assert any(
        not np.array_equal(a, average.arrays[n]) for n, a in trainer.model.state_dict().items() if n in average.arrays
    )


def test_averages_that_do_not_fit(tmp_path):
    begin(tmp_path / "run", RECIPE.with_settings(average="ema"), StopAt(step=2))
    path = tmp_path / "run/last.safetensors"
    checkpoint = Checkpoint.load(path)
    for average, said in (
        ({}, "it has no average of the weights"),
        ({"steps": 2, "arrays": {}}, "the average of conv1.weight is missing"),
    ):
        Checkpoint(checkpoint.model, checkpoint.optimizer, checkpoint.info, average=average).save(path)
        with pytest.raises((RunError, CheckpointError), match=said):
            go_on(tmp_path / "run")


@pytest.mark.parametrize("kind", [EMA, Lookahead])
def test_a_module_with_two_names_is_averaged_once(kind):
    """Its arrays stand twice in the state dict."""
    rng = np.random.default_rng(0)
    single, shared = mr.nn.Sequential(mr.nn.Linear(2, 2)), mr.nn.Sequential(mr.nn.Linear(2, 2))
    for p, q in zip(single.parameters(), shared.parameters()):
        q.data = p.data.copy()
    shared.again = shared[0]
    averages = kind(single), kind(shared)
    for _ in range(5):
        state = rng.bit_generator.state
        walk(single, rng)
        rng.bit_generator.state = state
        walk(shared, rng)
        for average in averages:
            average.step(0.5)
    trained = shared[0].weight.data.copy()
    assert np.array_equal(trained, single[0].weight.data)
    for average in averages:
        average.exchange()
    assert np.array_equal(shared[0].weight.data, single[0].weight.data)
    averages[1].exchange()
    assert np.array_equal(shared[0].weight.data, trained)
