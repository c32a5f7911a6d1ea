"""The experiment spectrum: Jacobians against finite differences, the law against random matrices, the verdict by its rule."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError, ShapeError
from minires.lab.experiments import spectrum as experiment
from minires.lab.experiments.spectrum import edges, evaluation, jacobian


def images(n=6, side=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, side, side))


def network(name, **options):
    mr.manual_seed(1)
    return mr.models.create(name, width=2, **options).double()


def inputs_and_outputs(model, names, image):
    """What each module is called with and returns, of one image."""
    found = {}
    handles = [
        dict(model.named_modules())[name].register_forward_hook(
            lambda module, x, y, name=name: found.update({name: (x[0].numpy(), y.numpy())})
        )
        for name in names
    ]
    with mr.no_grad(), mr.fusion(False):
        model(mr.tensor(image[None]))
    for handle in handles:
        handle.remove()
    return found


def by_differences(module, x, step=1e-6):
    """∂y/∂x at x, (1, C, H, W): a batch of x with one element moved in each."""
    moved = np.eye(x.size).reshape(x.size, *x.shape[1:]) * step
    with mr.no_grad(), mr.fusion(False):
        above, below = (module(mr.tensor(x + d)).numpy() for d in (moved, -moved))
    return ((above - below) / (2 * step)).reshape(x.size, -1).T


CASES = {
    "resnet14": ["layer1.0", "layer1.1", "layer2.0", "layer2"],
    "preresnet14": ["stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1", "stages.1.blocks"],
    "plain14": ["layer1.1", "layer2"],
}


@pytest.mark.parametrize("name", CASES)
def test_jacobians_against_finite_differences(name):
    model, batch = network(name), images()
    result = lab.spectrum(model, batch[0], CASES[name], statistics=batch)
    with evaluation(model, batch):
        found = inputs_and_outputs(model, CASES[name], batch[0])
        modules = dict(model.named_modules())
        expected = {module: by_differences(modules[module], found[module][0]) for module in CASES[name]}
    for i, module in enumerate(CASES[name]):
        matrix = expected[module]
        assert (result.outputs[i], result.inputs[i]) == matrix.shape
        values = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(result.values[module], values, rtol=1e-6, atol=1e-7 * values[0])
        if matrix.shape[0] == matrix.shape[1]:
            distance = np.linalg.norm(matrix - np.eye(len(matrix))) ** 2 / len(matrix)
            assert math.isclose(result.residual[i], distance, rel_tol=1e-6)
        else:
            assert math.isnan(result.residual[i])


def test_the_matrix_itself_and_the_chain_rule():
    """Rows and columns in the order (C, H, W); a stage's Jacobian is the product of its blocks'."""
    model, batch = network("preresnet14"), images()
    names = ["stages.1.blocks.0", "stages.1.blocks.1", "stages.1.blocks"]
    modules = dict(model.named_modules())
    kept = {}
    handles = [modules[n].register_forward_hook(lambda module, x, y, n=n: kept.update({n: (x[0], y)})) for n in names]
    with evaluation(model, batch):
        graph = lab.record(model, np.repeat(batch[:1], 7, 0), loss=lambda y: y.sum())  # 7 divides no number of rows
        first, second, stage = (jacobian(graph, *kept[n]) for n in names)
        for handle in handles:
            handle.remove()
        np.testing.assert_allclose(
            first, by_differences(modules[names[0]], kept[names[0]][0].numpy()[:1]), rtol=0, atol=1e-7
        )
    assert first.shape == (4 * 4 * 4, 2 * 8 * 8)
    np.testing.assert_allclose(second @ first, stage, rtol=0, atol=1e-12 * np.abs(stage).max())


def test_a_1x1_convolution_and_the_statistics():
    """One singular value of its weight for every pixel; the running statistics are those of the images."""
    model, batch = network("resnet8", option="B"), images()
    result = lab.spectrum(model, batch[0], ["layer2.0.downsample.0"])
    weight = model.layer2[0].downsample[0].weight.numpy()[:, :, 0, 0]
    expected = np.repeat([*np.linalg.svd(weight, compute_uv=False), 0, 0], 16)  # 4×4 pixels of 8×8, 2 channels to 4
    np.testing.assert_allclose(result.values["layer2.0.downsample.0"], expected, rtol=1e-12, atol=1e-15)
    with mr.no_grad():
        stem = model.conv1(mr.tensor(batch)).numpy()
    with evaluation(model, batch):
        np.testing.assert_allclose(model.bn1.running_mean, stem.mean((0, 2, 3)), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.bn1.running_var, stem.var((0, 2, 3), ddof=1), rtol=1e-9)
        assert not any(m.training for m in model.modules())
    assert (model.bn1.running_var == 1).all()
    a, b = (lab.spectrum(model, batch[0], ["layer1"], statistics=s).values["layer1"] for s in (None, batch))
    assert not np.allclose(a, b)


def test_blocks_and_stages():
    result = lab.spectrum(network("resnet14"), images()[0])
    assert result.modules[:4] == ["layer1.0", "layer1.1", "layer1", "layer2.0"]
    assert result.kinds == ["block", "block", "stage"] * 3
    assert (result.outputs[2:4], result.inputs[2:4]) == ([128, 64], [128, 128])
    assert [len(result.values[m]) for m in result.modules] == [128, 128, 128, 64, 64, 64, 32, 32, 32]
    assert all((np.diff(values) <= 0).all() for values in result.values.values())
    assert lab.spectrum(network("plain8"), images()[0]).modules[:2] == ["layer1.0", "layer1"]
    assert lab.spectrum(network("resnet8"), images()[0], ["layer1", "bn1"]).kinds == ["stage", "module"]


def test_blocks_that_begin_as_the_identity():
    result = lab.spectrum(network("preresnet8", zero_init_residual=True), images()[0], ["stages.0.blocks"])
    np.testing.assert_allclose(result.values["stages.0.blocks"], 1)
    assert result.residual[0] == 0
    assert result.verdict.word == "seen"


def test_the_law_against_products_of_random_matrices():
    """Π (1 + X_l), X_l of independent normal numbers with ‖X_l‖²/n = c/L."""
    rng, n, depth, c = np.random.default_rng(0), 400, 100, 0.8
    product = np.eye(n)
    for _ in range(depth):
        product = product + rng.standard_normal((n, n)) * math.sqrt(c / depth / n) @ product
    values = np.linalg.svd(product, compute_uv=False)
    result = lab.Spectrum({}, ["m"], ["stage"], [n], [n], {"m": values}, np.zeros(1))
    found, spread = result.moments("m")
    assert math.isclose(found, c, rel_tol=0.03)
    assert math.isclose(spread, 2 * c, rel_tol=0.05)
    np.testing.assert_allclose(edges(c), (values[-1], values[0]), rtol=0.08)
    assert result.verdict.word == "seen"


def test_the_edges_are_where_z_turns():
    for c in (0.1, 1.0, 3.0):
        y = np.linspace(1e-3, 10, 400_000)
        z = (1 + y) / y * np.exp(c * (1 + 2 * y))
        smallest, largest = edges(c)
        assert math.isclose(largest**2, z.min(), rel_tol=1e-6)
        assert math.isclose(smallest * largest, 1, rel_tol=1e-12)  # y → −1 − y takes z to 1/z


def result_with(*stages):
    """Of stages (mean of σ², relative variance, rows, columns)."""
    names = [f"stage {i}" for i in range(len(stages))]
    values = {
        name: np.sqrt(mean * np.array([1 + math.sqrt(variance), 1 - math.sqrt(variance)]))
        for name, (mean, variance, *_) in zip(names, stages)
    }
    rows, columns = ([stage[i] for stage in stages] for i in (2, 3))
    return lab.Spectrum({}, names, ["stage"] * len(names), rows, columns, values, np.zeros(len(names)))


LAW = (math.exp(0.25), 0.5, 2, 2)


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        ([LAW], "seen"),
        ([(math.exp(0.25), 0.74, 2, 2)], "seen"),
        ([(math.exp(0.25), 0.76, 2, 2)], "unclear"),
        ([(math.exp(0.25), 0.34, 2, 2)], "seen"),
        ([(math.exp(0.25), 0.32, 2, 2)], "unclear"),
        ([LAW, (math.exp(0.15), 0.95, 2, 2)], "not seen"),
        ([LAW, (0.9, 0.5, 2, 2)], "not seen"),
        ([LAW, (0.9, 0.5, 2, 4)], "seen"),
        ([(1.0, 0.0, 2, 2)], "seen"),
        ([(0.0, 0.5, 2, 2)], "not seen"),
        ([(math.exp(0.25), 0.5, 2, 4)], "unclear"),
        ([], "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(stages, word):
    result = result_with(*stages)
    for name, (mean, variance, *_) in zip(result.modules, stages):
        if mean:
            np.testing.assert_allclose(result.moments(name), (math.log(mean), variance), atol=1e-12)
    assert result.verdict.word == word
    result.kinds = ["block"] * len(stages)
    assert result.verdict.word == "unclear"


def test_json_and_pictures(tmp_path):
    steps = []
    result = lab.spectrum(network("preresnet8"), images()[0], statistics=images(), progress=lambda *s: steps.append(s))
    assert steps[:2] == [(0, 6, "stages.0.blocks.0"), (1, 6, "stages.0.blocks")]
    again = lab.Spectrum.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert json.loads(result.to_json())["verdict"] == result.verdict.word
    again.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = result.rows()
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[1][1] == "128×128"
    within = np.mean((result.values["stages.0.blocks"] >= 0.5) & (result.values["stages.0.blocks"] <= 2))
    assert rows[1][5] == f"{within:.0%}"


class Two(nn.Module):
    """A network in which one module takes two tensors, and another is never called."""

    def __init__(self):
        self.add, self.fc, self.idle = Add(), nn.Linear(3, 10), nn.Identity()

    def forward(self, x):
        return self.fc(F.flatten(F.global_avg_pool2d(self.add(x, x)), 1))


class Add(nn.Module):
    def forward(self, a, b):
        return a + b


@pytest.mark.parametrize(
    ("model", "modules", "message"),
    [
        (lambda: network("resnet8"), ["layer4"], r"no module 'layer4' in this network \(did you mean layer3"),
        (lambda: network("resnet8"), ["input"], "no module 'input' in this network"),
        (Two, None, "Two has no residual block that is a module of its own: name modules"),
        (Two, ["add"], "add has no Jacobian: it is not called with one tensor"),
        (Two, ["idle"], "idle has no Jacobian"),
    ],
)
def test_modules_that_cannot_be(model, modules, message):
    with pytest.raises(ConfigError, match=message):
        lab.spectrum(model().double(), images()[0], modules)


def test_a_jacobian_that_is_too_large_is_refused():
    model = mr.models.preresnet8(width=16).double()
    with pytest.raises(ConfigError, match=r"of stages\.0\.blocks\.0 has 16,384 × 16,384 elements, and 4,096 × 4,096"):
        lab.spectrum(model, images(side=32)[0])
    with pytest.raises(ConfigError, match=r"of stages\.2\.blocks\.0 has 4,096 × 8,192 elements"):
        lab.spectrum(model, images(side=32)[0], ["stages.2.blocks.0"])


def test_modules_that_are_too_large_are_left_out(monkeypatch):
    """By default, if there are others: a run of usual size has blocks that are small enough at its end."""
    monkeypatch.setattr(experiment, "MOST", 64)
    model = network("resnet14")  # Jacobians of 128, 128, 64 × 128, 64, 32 × 64 and 32 elements along a side
    found = lab.spectrum(model, images()[0])
    assert found.modules == ["layer2.1", "layer3.0", "layer3.1", "layer3"]
    assert found.verdict == ("unclear", "no stage that keeps the shape")


def test_bad_images_and_networks():
    model = network("resnet8")
    with pytest.raises(ConfigError, match=r"one image of shape \(C, H, W\), not at an array of shape \(6, 3, 8, 8\)"):
        lab.spectrum(model, images())
    model.bn1 = nn.BatchNorm2d(2, track_running_stats=False).double()
    assert lab.spectrum(model, images()[0], ["layer1"]).modules == ["layer1"]  # its images do not depend on each other
    with pytest.raises(ConfigError, match="the images of a batch depend on each other in evaluation mode too"):
        lab.spectrum(model, images()[0], ["bn1"])
    own = Own().double()
    with np.errstate(all="ignore"), pytest.raises(DataError, match="the Jacobian of root is not finite"):
        lab.spectrum(own, np.zeros((3, 4, 4)), ["root"])


class Root(nn.Module):
    def forward(self, x):
        return x**0.5  # of which the derivative at 0 is infinite


class Block(nn.Module):
    def forward(self, x):
        return F.residual_add(x * 0.5, x)


class Own(nn.Module):
    """A user's network, with a block of his own and one stage."""

    def __init__(self):
        self.root, self.stage, self.fc = Root(), nn.Sequential(Block(), Block()), nn.Linear(3, 10)

    def forward(self, x):
        return self.fc(F.flatten(F.global_avg_pool2d(self.stage(self.root(x))), 1))


def test_a_network_of_ones_own():
    result = lab.spectrum(Own().double(), np.ones((3, 4, 4)))
    assert result.modules == ["stage.0", "stage.1", "stage"]
    np.testing.assert_allclose(result.values["stage.1"], 1.5)
    np.testing.assert_allclose(result.values["stage"], 2.25)
    np.testing.assert_allclose(result.residual, [0.25, 0.25, 1.25**2])


@pytest.mark.parametrize(
    ("module", "statistics", "error"),
    [
        ("stages.2.blocks", images(), None),
        ("none", images(), ConfigError),
        ("stages.2.blocks", images()[:, :2], ShapeError),
    ],
)
def test_the_model_is_not_changed(module, statistics, error):
    model = network("preresnet8").train()
    model.stages[1].eval()
    model.norm.momentum = 0.3
    before = {name: array.copy() for name, array in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    with pytest.raises(error) if error else nullcontext():
        lab.spectrum(model, images()[0], [module], statistics)
    assert all((array == before[name]).all() for name, array in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert model.norm.momentum == 0.3
    assert model.stages[0].blocks[0].norm1.momentum == 0.1
    assert all(p.grad is None for p in model.parameters())
    assert not any(m.is_hooked for m in model.modules())
