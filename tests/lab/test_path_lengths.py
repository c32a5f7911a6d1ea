"""The experiment paths: its numbers, its verdict by the stated rule, JSON there and back, pictures."""

import json
import math

import numpy as np
import pytest

import minires as mr
from minires import lab
from minires.errors import ConfigError, DataError
from minires.lab.experiments.paths import middle


def batch(images=4, side=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((images, 3, side, side)), rng.integers(0, 10, images)


@pytest.fixture(scope="module")
def found():
    mr.manual_seed(0)
    model = mr.models.resnet8(option="B").double()
    return model, batch(), lab.paths(model, batch(), draws=64, samples=6)


def test_paths(found):
    model, images_and_labels, result = found
    assert result.counts == [1, 3, 3, 1]
    assert result.place == "input"
    assert abs(result.shares.sum() - 1) < 1e-10
    assert result.error < 1e-12
    assert math.isclose(result.mean_length, lab.mean_path_length(model, images_and_labels), rel_tol=1e-12)
    assert math.isclose((np.arange(4) * result.shares).sum(), result.mean_length, rel_tol=1e-9)
    # a single path of length 0 and of length L: the energy is exact, and so is a sampled path
    for k in (0, 3):
        assert math.isclose(result.energy[k], result.norms[k] ** 2, rel_tol=1e-9)
        assert result.energy_error[k] < 1e-9 * result.energy[k]
        assert math.isclose(result.sampled[k], result.norms[k], rel_tol=1e-9)


def test_the_energy_is_that_of_single_paths(found):
    model, images_and_labels, result = found
    graph = lab.record(model, *images_and_labels)
    names = [a.name for a in graph.additions]
    single = [np.sum(graph.backward([graph.input], lab.OnePath([n]))[0][0] ** 2) for n in names]
    assert abs(result.energy[1] - sum(single)) < 4 * result.energy_error[1]
    assert result.energy_error[1] < 0.2 * result.energy[1]


def test_sampled_paths_are_shown_as_veit_et_al_did(found):
    *_, result = found
    single = result.sampled
    assert np.allclose(result.effective, [single[0], 3 * single[1], 3 * single[2], single[3]])
    heads, rows = result.rows()
    assert heads[-1] == "mean ‖g_p‖"
    assert rows[3][-1].startswith(f"{single[3]:.3e} ± ")
    assert (
        "95 % of all paths cross 0 to 3 residual functions, and 95 % of the number of paths times"
        in result.verdict.because
    )
    figure = result.plot()
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", "log"]
    assert "of paths × mean ‖g_p‖" in {text.get_text() for text in figure.axes[1].get_legend().get_texts()}


def test_the_middle_of_the_lengths():
    counts = [math.comb(54, k) for k in range(55)]
    first, last = middle(np.array(counts, float))
    assert sum(counts[:first]) <= 0.025 * 2**54 < sum(counts[: first + 1])
    assert sum(counts[last + 1 :]) <= 0.025 * 2**54 < sum(counts[last:])
    assert middle(np.array([0.0, 0.0, 1.0, 0.0])) == (2, 2)
    assert middle(np.array([1.0, 1.0, 1.0, 1.0]), 0.5) == (1, 2)


def test_the_error_of_the_mean_length():
    """It is how much the mean length varies between draws, whose lengths are correlated."""
    mr.manual_seed(0)
    model = mr.models.resnet14(width=4).double()
    results = [lab.paths(model, batch(2), at="stem", draws=8, seed=seed) for seed in range(24)]
    means, errors = np.array([r.length_by_energy for r in results]).T
    assert 0.6 < np.sqrt((errors**2).mean()) / means.std(ddof=1) < 1.6
    found = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])  # ratios 3/4, 2/4, 1/4 of equal energies
    from minires.lab.experiments.paths import _length_error

    assert math.isclose(_length_error(found), 0.25 / math.sqrt(3))
    assert math.isnan(_length_error(np.zeros((2, 3))))


def test_places(found):
    model, images_and_labels, _ = found
    for at in ("stem", "layer1.0", "layer2.0", "layer3.0.conv1"):
        result = lab.paths(model, images_and_labels, at=at, draws=2)
        assert result.place == at
        assert abs(result.shares.sum() - 1) < 1e-9
    assert lab.paths(model, images_and_labels, at="layer2.0", draws=2).counts == [1, 1]
    with pytest.raises(ConfigError, match=r"no place 'layer2\.1' in this network \(did you mean layer2\.0,"):
        lab.paths(model, images_and_labels, at="layer2.1")


def result_with(energy, counts=(1, 4, 6, 4, 1), error=0.01):
    n = len(counts)
    zeros = np.zeros(n)
    return lab.Paths(
        {},
        "input",
        1.0,
        zeros,
        zeros,
        list(counts),
        np.array(energy, float),
        np.full(n, error),
        error,
        32,
        0,
        0,
        zeros,
        zeros,
        0,
    )


def test_the_verdict_follows_its_rule():
    assert result_with([4, 2, 1, 0, 0]).verdict.word == "seen"
    assert result_with([0, 0, 1, 2, 4]).verdict.word == "not seen"
    assert result_with([1, 1, 1, 1, 1]).verdict.word == "unclear"
    assert result_with([4, 2, 1, 0, 0], error=10).verdict.word == "unclear"
    assert result_with([4, 2, 1, 0, 0]).length_of_all == 2
    assert math.isclose(result_with([1, 1, 2, 0, 0]).length_by_energy[0], 1.25)


def test_a_result_survives_json(found):
    result = found[2]
    again = lab.Paths.from_json(result.to_json())
    for name, value in vars(result).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert json.loads(result.to_json())["verdict"] == result.verdict.word
    assert again.to_json() == result.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("norms"), "without 'norms'"),
        (lambda d: d.update(norms="x"), "norms of a result of 'paths' cannot be 'x'"),
        (lambda d: d.update(norms=[[1, 2], [3]]), "norms of a result of 'paths' cannot be"),
        (lambda d: d.update(counts=[1.5]), "counts of a result of 'paths' cannot be"),
        (lambda d: d.update(place=3), "place of a result of 'paths' cannot be 3"),
        (lambda d: d.update(experiment="split"), "no result of the experiment 'paths' but of 'split'"),
    ],
)
def test_a_damaged_result_is_refused(found, change, message):
    data = found[2].to_dict()
    change(data)
    with pytest.raises(DataError, match=message):
        lab.Paths.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "3", "null", '"paths"'])
def test_what_is_no_result_is_refused(text):
    with pytest.raises(DataError):
        lab.Paths.from_json(text)


def test_pictures(found, tmp_path):
    model, images_and_labels, result = found
    for other in (result, lab.split(model, images_and_labels)):
        for name in ("picture.png", "picture.svg"):
            other.plot(tmp_path / name)
            assert (tmp_path / name).stat().st_size > 5000
        heads, rows = other.rows()
        assert rows
        assert {len(row) for row in rows} == {len(heads)}


def test_gradients_that_are_not_finite(found):
    images, labels = found[1]
    huge = mr.models.resnet8().double()
    for p in huge.parameters():
        p.data = p.data * 1e160
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"not finite|the loss is"):
        lab.paths(huge.eval(), (images, labels), draws=2)
