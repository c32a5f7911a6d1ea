import numpy as np
import pytest
from parameters import give_grads, params

from minires import nn
from minires.errors import ConfigError
from minires.optim import AdamW

SETTINGS = [{}, {"betas": (0.8, 0.9), "eps": 1e-3}, {"weight_decay": 0.3, "lr": 0.1}, {"weight_decay": 0.0}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_are_torchs(settings):
    torch = pytest.importorskip("torch")
    ours = params()
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    a, b = AdamW(ours, **settings), torch.optim.AdamW(theirs, **settings)
    for step in range(5):
        give_grads(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = torch.tensor(p.grad)
        if step == 2:  # a parameter without a gradient is left alone, and its step does not count
            ours[1].grad = theirs[1].grad = None
        a.step()
        b.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)
    saved = b.state_dict()
    again = AdamW(ours, **settings)
    again.load_state_dict(
        {
            "state": {i: {k: v.numpy() for k, v in entry.items()} for i, entry in saved["state"].items()},
            "param_groups": [{k: group[k] for k in (*a.defaults, "params")} for group in saved["param_groups"]],
        }
    )
    for i, entry in a.state_dict()["state"].items():
        assert again.state_dict()["state"][i]["step"] == entry["step"]
        np.testing.assert_allclose(again.state_dict()["state"][i]["exp_avg_sq"], entry["exp_avg_sq"], rtol=1e-12)


def test_the_first_steps_by_hand():
    """From m = v = 0 the first step is lr · g / (|g| + ε) = lr · sign(g), and the second, with the same g, too."""
    [w, _] = params()
    before = w.data.copy()
    optimizer = AdamW([w], lr=0.5, weight_decay=0.1, eps=0.0)
    give_grads([w], 0)
    optimizer.step()
    once = before * (1 - 0.5 * 0.1) - 0.5 * np.sign(w.grad)
    np.testing.assert_allclose(w.data, once)
    optimizer.step()
    np.testing.assert_allclose(w.data, once * (1 - 0.5 * 0.1) - 0.5 * np.sign(w.grad))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"betas": (0.9, 1.0)}, r"betas are two numbers from 0 up and below 1, not \(0.9, 1.0\)"),
        ({"betas": (0.9,)}, "betas are two numbers"),
        ({"eps": -1}, "eps must be 0 or more, not -1"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more, not nan"),
    ],
)
def test_settings_that_cannot_work(settings, says):
    with pytest.raises(ConfigError, match=says):
        AdamW(params(), **settings)


def test_a_group_with_a_setting_of_another_optimizer():
    with pytest.raises(
        ConfigError, match=r"AdamW: unknown setting 'momentum' .*; there are lr, betas, eps, weight_decay"
    ):
        AdamW([{"params": params(), "momentum": 0.9}])


def test_a_parameter_without_axes():
    torch = pytest.importorskip("torch")
    p, q = nn.Parameter(np.array(1.0, np.float32)), torch.tensor(1.0, requires_grad=True)
    a, b = AdamW([p], 0.1), torch.optim.AdamW([q], 0.1)
    for _ in range(3):
        p.grad, q.grad = np.array(0.5, np.float32), torch.tensor(0.5)
        a.step()
        b.step()
    assert p.item() == pytest.approx(q.item(), rel=1e-6)
