"""The experiment responses: deviations against formulas and hooks, its verdict, JSON, bad input."""

import numpy as np
import pytest
from short_trainings import batch, dataset, network

import minires as mr
from minires import lab, nn
from minires.errors import ConfigError
from minires.lab import fit


def with_weights(name, seed=0, **options):
    """A network whose γ and β are no 1 and 0."""
    model, rng = network(name, **options), np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = rng.uniform(0.2, 2, module.weight.shape).astype(np.float32)
            module.bias.data = rng.uniform(-1, 1, module.bias.shape).astype(np.float32)
    return model


def test_the_batch_statistics_leave_only_gamma_and_beta():
    """σ² of the response is the mean of γ²σ²/(σ² + ε) and the variance of β, over the channels."""
    model, images = with_weights("resnet8", option="B"), batch(dataset())
    before = {k: v.copy() for k, v in model.state_dict().items()}
    result = lab.responses({"net": model}, images)
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    names = ["bn1", *(f"layer{i}.0.bn{j}" for i in (1, 2, 3) for j in (1, 2))]  # and no projection's
    assert result.layers["net"] == names
    modules = dict(model.named_modules())
    for name, found in zip(names, result.deviations["net"]):
        gamma, beta = (p.data.astype(float) for p in (modules[name].weight, modules[name].bias))
        assert abs(found - np.sqrt((gamma**2).mean() + beta.var())) < 0.01 * found, name


@pytest.mark.parametrize("name", ["resnet8", "plain8"])
def test_deviations_against_hooks(name):
    model, (images, labels) = with_weights(name), batch(dataset())
    model(mr.tensor(images))
    model.eval()
    seen = {}
    handles = [
        m.register_forward_hook(lambda module, inputs, y, path=path: seen.update({path: y.numpy().copy()}))
        for path, m in model.named_modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    with mr.no_grad():
        model(mr.tensor(images))
    for handle in handles:
        handle.remove()
    result = lab.responses({"net": model}, (images, labels))
    assert result.layers["net"] == list(seen)
    np.testing.assert_allclose(result.deviations["net"], [y.std(dtype=float) for y in seen.values()], rtol=1e-5)
    assert not np.allclose(
        result.deviations["net"], lab.responses({"net": model}, (images, labels), training=True).deviations["net"]
    )


def result_with(ratios):
    deviations = {"plain": np.array([1.0, 3.0])}
    deviations |= {f"net{i}": np.array([2.0 * r, 1.0 * r, 3.0 * r]) for i, r in enumerate(ratios)}
    smaller = [f"net{i}" for i in range(len(ratios))]
    return lab.Responses(
        {}, {k: list("abc")[: len(v)] for k, v in deviations.items()}, deviations, smaller, ["plain"] * len(ratios)
    )


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([0.9, 0.5], "seen"),
        ([0.5, 1.06], "not seen"),
        ([0.5, 1.0], "unclear"),
        ([0.5, 0.96], "unclear"),
        ([], "unclear"),
    ],
)
def test_the_verdict_follows_its_rule(ratios, word):
    result = result_with(ratios)
    np.testing.assert_allclose(result.ratios, ratios)
    assert result.verdict.word == word


def test_json_and_pictures(tmp_path):
    networks = {"a": with_weights("resnet8"), "b": with_weights("plain14", 1)}
    progress = []
    result = lab.responses(networks, batch(dataset()), [("a", "b")], progress=lambda *given: progress.append(given[:2]))
    assert progress == [(0, 2), (1, 2)]
    again = lab.Responses.from_json(result.to_json())
    assert again.layers == result.layers
    for name, value in result.deviations.items():
        np.testing.assert_array_equal(again.deviations[name], value)
    assert again.to_json() == result.to_json()
    again.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = again.rows()
    assert {len(row) for row in rows} == {len(heads)}


def test_deeper_networks():
    assert fit.deeper("resnet20") == "resnet56"
    assert fit.deeper("resnet20", quick=True) == "resnet32"
    assert fit.deeper("plain56") == "plain110"
    for name in ("resnet110", "resnet18", "crossing"):
        with pytest.raises(ConfigError, match=f"{name} has no deeper network"):
            fit.deeper(name)


def test_bad_input():
    images = batch(dataset())
    for name, options in (("preresnet8", {}), ("resnet8", {"norm": "none"})):
        with pytest.raises(ConfigError, match="net has no batch norm right after each convolution"):
            lab.responses({"net": network(name, **options)}, images)
    with pytest.raises(ConfigError, match="a pair with 'other', which is none of the networks net"):
        lab.responses({"net": network("resnet8")}, images, [("net", "other")])
