"""The experiment lesion: deleted and exchanged blocks against networks written out, its verdict, JSON, bad input."""

import math

import numpy as np
import pytest
from short_trainings import batch, dataset, network

import minires as mr
from minires import functional as F
from minires import lab
from minires.errors import ConfigError
from minires.lab import fit
from minires.lab.experiments.lesion import Deleted, _Patient, kendall


def run_blocks(model, x, blocks):
    """The logits where a list of functions stands in place of the blocks."""
    pre = "Pre" in type(model).__name__
    y = model.stem(x) if pre else F.relu(model.bn1(model.conv1(x)))
    for block in blocks:
        y = block(y)
    return model.head(F.relu(model.norm(y))) if pre else model.fc(model.avgpool(y).flatten(1))


def zero_weights(block, name):
    """Set the residual function to zero by the last weights: γ and β, or the last convolution."""
    if name.startswith("pre"):
        block.conv2.weight.data = np.zeros_like(block.conv2.weight.data)
    else:
        block.bn2.weight.data, block.bn2.bias.data = (np.zeros_like(p.data) for p in (block.bn2.weight, block.bn2.bias))


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize("name", ["resnet14", "preresnet14"])
def test_a_deleted_residual_block(name, option):
    """It is the block whose residual function has the weights 0."""
    model, (images, _) = network(name, option=option), batch(dataset())
    x = mr.tensor(images)
    with mr.no_grad():
        model(x)  # sets the running statistics
        model.eval()
        blocks = [m for m in model.modules() if hasattr(m, "last_norm")]
        assert len(blocks) == 6
        for i, block in enumerate(blocks):
            left = [Deleted(b) if b is block else b for b in blocks]
            found = run_blocks(model, x, left).numpy()
            before = {k: v.copy() for k, v in block.state_dict().items()}
            assert not np.allclose(found, model(x).numpy(), atol=1e-3), i
            zero_weights(block, name)
            np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-4, atol=1e-5)
            block.load_state_dict(before)


def test_a_deleted_plain_block():
    model = network("plain14").eval()
    x = mr.tensor(np.abs(np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)))
    np.testing.assert_array_equal(Deleted(model.layer1[0])(x).numpy(), x.numpy())
    y = Deleted(model.layer2[0])(x).numpy()
    assert y.shape == (2, 8, 3, 3)
    np.testing.assert_array_equal(y[:, 2:6], x.numpy()[:, :, ::2, ::2])
    assert not y[:, [0, 1, 6, 7]].any()


@pytest.fixture(scope="module")
def trained():
    data, found = dataset(128), []
    for name in ("resnet14", "plain14"):
        model = network(name)
        fit.fit(model, data, 40, 16)
        fit.estimate_statistics(model, data)
        found.append(model)
    return found


@pytest.fixture(scope="module")
def result(trained):
    before = [{k: v.copy() for k, v in m.state_dict().items()} for m in trained]
    found = lab.lesion(trained[0], dataset(60, seed=1), dataset(128), trained[1], draws=3)
    for model, state in zip(trained, before):
        assert all((model.state_dict()[k] == v).all() for k, v in state.items())
        assert all(m.training for m in model.modules())
        assert not any(isinstance(m, Deleted) for m in model.modules())
    return found


def test_lesion(trained, result):
    assert result.blocks == [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1)]
    assert result.changes_shape == [0, 0, 1, 0, 1, 0]
    assert result.chance == 0.75
    test, train = dataset(60, seed=1), dataset(128)
    for i, model in enumerate(trained):
        assert result.whole[i, 0] == 1 - fit.evaluated(model, test)[1]
    # a deletion by hand, with the statistics estimated again
    model = network("plain14")
    model.load_state_dict(trained[1].state_dict())
    model.layer2[1] = mr.nn.Identity()
    assert math.isclose(result.single[1, 0, 3], 1 - fit.evaluated(model, test)[1])
    fit.estimate_statistics(model, train)
    assert math.isclose(result.single[1, 1, 3], 1 - fit.evaluated(model, test)[1])
    # with all blocks deleted nothing is left to choose
    assert result.deleted[-1] == 6
    assert (result.many[:, :, -1] == result.many[:, :, -1, :1]).all()


def test_exchanged_blocks(trained, result):
    assert result.swaps == [1]  # the two blocks of the first stage alone have one shape
    assert (result.tau == kendall((1, 0, 2, 3, 4, 5))).all()
    model = network("resnet14")
    model.load_state_dict(trained[0].state_dict())
    model.layer1[0], model.layer1[1] = model.layer1[1], model.layer1[0]
    assert math.isclose(result.shuffled[0, 0, 0, 0], 1 - fit.evaluated(model, dataset(60, seed=1))[1])


def test_which_blocks_are_exchanged():
    assert _Patient(network("resnet20")).exchangeable() == [(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)]
    assert _Patient(network("preplain20")).exchangeable() == [(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)]
    assert _Patient(network("resnet8")).exchangeable() == []


def test_kendall():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for n in (2, 5, 9):
        order = tuple(map(int, rng.permutation(n)))
        assert math.isclose(kendall(order), kendalltau(range(n), order).statistic, abs_tol=1e-12)
    assert kendall((0, 1, 2)) == 1
    assert kendall((2, 1, 0)) == -1
    assert kendall((0,)) == 1


def result_with(residual, plain, whole=(0.1, 0.1), changes=(0, 0, 0, 1)):
    """A result with these errors without each of four blocks, with the stored statistics."""
    single = np.array([[residual, [0.1] * 4], [plain, [0.1] * 4]])
    wholes = np.array([[whole[0], 0.1], [whole[1], 0.1]])
    empty = np.zeros((2, 2, 0, 1))
    return lab.Lesion(
        {},
        ["resnet", "plain"],
        0.9,
        wholes,
        list("abcd"),
        list(changes),
        single,
        [],
        empty,
        [],
        np.zeros((0, 1)),
        empty,
    )


@pytest.mark.parametrize(
    ("residual", "plain", "word"),
    [
        ([0.1, 0.2, 0.9, 0.9], [0.9, 0.8, 0.1, 0.1], "seen"),  # medians without the last: 0.2 and 0.8
        ([0.6, 0.6, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9], "not seen"),
        ([0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.9], "not seen"),
        ([0.4, 0.4, 0.4, 0.1], [0.9, 0.9, 0.9, 0.9], "unclear"),
        ([0.2, 0.2, 0.2, 0.2], [0.4, 0.4, 0.4, 0.4], "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(residual, plain, word):
    assert result_with(residual, plain).verdict.word == word


def test_what_leaves_it_unclear():
    seen = [0.1, 0.2, 0.9, 0.9], [0.9, 0.8, 0.1, 0.1]
    np.testing.assert_allclose(result_with(*seen).damage[0, 0], [0, 0.125, 1, 1])
    assert result_with(*seen, whole=(0.1, 0.5)).verdict.word == "unclear"
    assert result_with(*seen, whole=(0.5, 0.1)).verdict.word == "unclear"
    assert result_with(*seen, changes=(1, 1, 1, 1)).verdict.word == "unclear"
    alone = result_with(*seen)
    alone.networks = ["resnet"]
    assert alone.verdict.word == "unclear"


def test_json_and_pictures(result, trained, tmp_path):
    few = lab.lesion(network("resnet8"), dataset(20), dataset(20), draws=1)  # no control, nothing to exchange
    assert few.swaps == []
    for found, columns in ((result, 5), (few, 3)):
        again = lab.Lesion.from_json(found.to_json())
        for name, value in vars(found).items():
            np.testing.assert_array_equal(np.ravel(getattr(again, name)), np.ravel(value))
        assert again.to_json() == found.to_json()
        again.plot(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 5000
        heads, rows = again.rows()
        assert {len(row) for row in rows} == {len(heads)} == {columns}


def test_bad_input():
    data = dataset(20)
    with pytest.raises(ConfigError, match="CrossingNet has none of the blocks that can be deleted"):
        lab.lesion(mr.models.crossing(), data, data)
    with pytest.raises(ConfigError, match="the network has no shortcuts"):
        lab.lesion(network("plain20"), data, data)
    with pytest.raises(ConfigError, match="the control has shortcuts"):
        lab.lesion(network(), data, data, network())
    with pytest.raises(ConfigError, match="the control has 9 blocks and the network 3"):
        lab.lesion(network(), data, data, network("plain20"))
    with pytest.raises(ConfigError, match="draws must be a whole number from 1 to 1000, not 0"):
        lab.lesion(network(), data, data, draws=0)
