"""The experiment identity: shares against formulas and blocks written out, path lengths against all paths one by one."""

import itertools
import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.errors import ConfigError, DataError
from minires.lab.catalogue import run
from minires.lab.setting import Setting


def batch(images=4, side=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((images, 3, side, side)), rng.integers(0, 10, images)


def small(**options):
    mr.manual_seed(0)
    return mr.models.preresnet14(width=4, num_classes=10, **options).double()


def variance(x):
    """Over images and pixels, channel by channel, and then the mean."""
    return sum(x[:, c].var() for c in range(x.shape[1])) / x.shape[1]


def test_shares_of_blocks_written_out():
    model = small()
    result = lab.identity({"it": model}, batch(), draws=2)
    assert result.position == [1, 2, 0, 1, 0, 1]
    assert result.norms == [13]
    x, expected = model.stem(mr.tensor(batch()[0])), []
    for stage in model.stages:
        for block in stage.blocks:
            first = F.relu(block.norm1(x))
            changes = not isinstance(block.downsample, nn.Identity)
            shortcut = block.downsample(first) if changes else x
            branch = block.conv2(F.relu(block.norm2(block.conv1(first))))
            expected.append((variance(branch.data), variance(shortcut.data)))
            x = branch + shortcut
    f, s = np.array(expected).T
    np.testing.assert_allclose(result.share["it"], f / (f + s), rtol=1e-9)
    np.testing.assert_allclose(result.variance["it"], s, rtol=1e-9)


class Wide(nn.Module):
    """Blocks x + conv(relu(bn(x))) of 400 channels of one pixel, whose residual functions have variance 1 exactly on average.

    Var(relu(z)) = 1/2 − 1/2π for a normal z.
    """

    def __init__(self, blocks):
        for i in range(blocks):
            self.add_module(f"norm{i}", nn.BatchNorm2d(400))
            self.add_module(f"conv{i}", nn.Conv2d(400, 400, 1, bias=False))
            nn.init.normal_(getattr(self, f"conv{i}").weight, 0.0, 1 / math.sqrt(400 * (1 / 2 - 1 / (2 * math.pi))))
        self.blocks = blocks

    def forward(self, x):
        x = x * 1.0
        for i in range(self.blocks):
            x = F.residual_add(getattr(self, f"conv{i}")(F.relu(getattr(self, f"norm{i}")(x))), x)
        return F.flatten(x, 1)


def test_one_part_in_l_plus_one():
    mr.manual_seed(0)
    rng = np.random.default_rng(0)
    given = rng.standard_normal((400, 400, 1, 1)), rng.integers(0, 400, 400)
    result = lab.identity({"wide": Wide(8).double()}, given, draws=2)
    np.testing.assert_allclose(result.share["wide"], 1 / np.arange(2, 10), rtol=0.06)
    np.testing.assert_allclose(result.variance["wide"], np.arange(1, 9), rtol=0.06)
    assert abs(result.times_depth("wide") - 1) < 0.04
    assert result.verdict.word == "seen"


def test_the_mean_length_is_that_of_all_paths():
    """Σ_p k_p‖g_p‖² / Σ_p ‖g_p‖² over the 2^L paths, one by one; exactly so on average over all 2^L signs."""
    mr.manual_seed(0)
    model = mr.models.preresnet8(width=4, num_classes=10).double()
    graph = lab.record(model, *batch())
    names, x = [a.name for a in graph.additions], graph.place("stem")
    energies = np.zeros(4)
    for chosen in itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(4)):
        energies[len(chosen)] += np.sum(graph.backward([x], lab.OnePath(chosen))[0][0] ** 2)
    exact = (np.arange(4) * energies).sum() / energies.sum()
    pairs = []
    for signs in itertools.product([-1.0, 1.0], repeat=3):
        gradient, weighted = graph.backward([x], lab.MeanLength(dict(zip(names, signs))))[0]
        pairs.append(((weighted * gradient).sum(), (gradient**2).sum()))
    lengths, squares = np.mean(pairs, axis=0)
    assert math.isclose(squares, energies.sum(), rel_tol=1e-9)
    assert math.isclose(lengths / squares, exact, rel_tol=1e-9)
    found = [lab.identity({"it": model}, batch(), draws=40, seed=seed) for seed in range(6)]
    means, errors = np.array([r.length[0] for r in found]), np.array([r.length_error[0] for r in found])
    assert abs(means.mean() - exact) < 4 * np.sqrt((errors**2).sum()) / 6
    assert 0.4 < means.std(ddof=1) / errors.mean() < 2.2  # the standard error is one
    assert errors.mean() < 0.2


@pytest.fixture(scope="module")
def six():
    networks = {name: model.double() for name, model in lab.identity_networks(14, seed=1, width=4).items()}
    return networks, lab.identity(networks, batch(), draws=4)


def test_the_six_networks(six):
    networks, result = six
    assert result.networks == ["BN", "no BN", "α = 0", "α = 1/√L", "Fixup", "γ = 0"]
    assert [n > 0 for n in result.norms] == [True, False, False, False, False, True]
    for name in ("α = 0", "Fixup", "γ = 0"):
        assert (result.share[name] == 0).all()
    length = dict(zip(result.networks, result.length))
    assert length["α = 0"] == length["γ = 0"] == 0
    assert math.isnan(length["Fixup"])  # its classifier is 0, and so is the gradient
    assert 0 < length["α = 1/√L"] < min(length["BN"], length["no BN"])
    odds = {name: share[0] / (1 - share[0]) for name, share in result.share.items()}
    assert math.isclose(odds["α = 1/√L"], odds["no BN"] / 6, rel_tol=1e-6)  # α² = 1/L
    for block, plain in zip(networks["Fixup"].stages[1].blocks, networks["no BN"].stages[1].blocks, strict=True):
        np.testing.assert_allclose(block.conv1.weight.data, plain.conv1.weight.data / math.sqrt(6), rtol=1e-6)
        assert not block.conv2.weight.data.any()
        assert block.alpha.data == 1


def test_skip_init_learns_its_factors(six):
    model = six[0]["α = 0"]
    loss = F.cross_entropy(model(mr.tensor(batch()[0])), batch()[1])
    loss.backward()
    assert all(block.alpha.grad != 0 for stage in model.stages for block in stage.blocks)
    model.zero_grad()


def test_networks_stay_as_they_are():
    model = small().eval()
    before = [p.data.copy() for p in model.parameters()] + [b.copy() for b in model.buffers()]
    lab.identity({"it": model}, batch(), training=True, draws=2)
    with pytest.raises(ConfigError, match="identity compares networks with the same blocks: b has others than a"):
        lab.identity({"a": model, "b": mr.models.preresnet8(width=4).double()}, batch(), training=True, draws=2)
    after = [p.data for p in model.parameters()] + list(model.buffers())
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert not any(m.training for m in model.modules())


def result_with(share, norms=(5,), position=(1, 2, 3, 4)):
    names = [str(i) for i in range(len(norms))]
    shares = {name: np.array(share, float) for name in names}
    zeros = np.zeros(len(norms))
    return lab.Identity({}, names, list(norms), ["b"] * 4, list(position), shares, shares, zeros, zeros, 2)


def test_the_verdict_follows_its_rule():
    assert result_with([0, 0, 1 / 4, 1 / 5]).verdict.word == "seen"
    assert result_with([0, 0, 1 / 4, 1 / 5]).times_depth("0") == 1
    assert result_with([9, 9, 1.4 / 4, 1.4 / 5]).verdict.word == "seen"
    assert result_with([0, 0, 1.7 / 4, 1.7 / 5]).verdict.word == "unclear"
    assert result_with([0, 0, 0.6 / 4, 0.6 / 5]).verdict.word == "unclear"
    assert result_with([0, 0, 2.1 / 4, 2.1 / 5]).verdict.word == "not seen"
    assert result_with([0, 0, 0.4 / 4, 0.4 / 5]).verdict.word == "not seen"
    assert result_with([0, 0, 1 / 4, 1 / 5], norms=(0,)).verdict.word == "unclear"  # no batch norm
    assert result_with([0, 0, 0, 0]).verdict.word == "unclear"  # γ = 0
    assert result_with([1 / 2, 1 / 3, 1 / 2, 1 / 3], position=(1, 2, 1, 2)).verdict.word == "unclear"  # too few blocks


def test_the_command_and_json():
    setting = Setting(model="preresnet8", width=4, image_size=8, batch_size=4, quick=True)
    result = run("identity", setting)
    assert result.settings["width"] == 4
    assert result.draws == 4
    again = lab.Identity.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.share["BN"], result.share["BN"])
    with pytest.raises(ConfigError, match="resnet18 is not one of them"):
        run("identity", setting.with_(model="resnet18"))


def test_bad_input():
    with pytest.raises(ConfigError, match="has no residual addition"):
        lab.identity({"it": mr.models.plain8(width=4, num_classes=10).double()}, batch())
    with pytest.raises(ConfigError, match="draws must be a whole number from 2 up, not 1"):
        lab.identity({"it": small()}, batch(), draws=1)
    with pytest.raises(ConfigError, match="there are no networks"):
        lab.identity({}, batch())
    model = small()
    model.stages[0].blocks[0].conv1.weight.data[0, 0, 0, 0] = math.inf
    with pytest.raises(DataError, match="the loss is nan"), np.errstate(all="ignore"):
        lab.identity({"it": model}, batch())
