"""WhitenedResNet: against the same network in PyTorch, and its whitening against the covariance of patches."""

from itertools import pairwise

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError, ShapeError


def small(**options):
    mr.manual_seed(0)
    return mr.models.create("whitened_resnet11", **{"width1": 6, "width2": 8, "width3": 10} | options)


def images(n=8, side=16):
    """Images whose neighbouring pixels resemble each other."""
    noise = np.random.default_rng(0).standard_normal((n, 3, side + 2, side + 2))
    smooth = sum(noise[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3)) / 3
    return smooth.astype(np.float32)


def test_parameters_by_layer():
    patch = 2 * 2 * 2 * 3
    widths = [patch, 64, 192, 256]
    convolutions = sum(9 * (i * o + 2 * o * o) for i, o in pairwise(widths))
    norms = sum(3 * 2 * o for o in widths[1:])
    expected = (9 * 3 * patch + patch) + convolutions + norms + 256 * 10
    assert sum(p.size for p in mr.models.whitened_resnet11().parameters()) == expected == 2_490_016


def test_patches_become_white():
    model, x = small(), images(200)
    model.whiten(x)
    y = model.whitening(mr.tensor(x)).numpy()[:, :, :-1, :-1]  # whole patches
    half = y.shape[1] // 2
    np.testing.assert_array_equal(y[:, half:], -y[:, :half])
    rows = y[:, :half].transpose(1, 0, 2, 3).reshape(half, -1)
    covariance = rows @ rows.T / rows.shape[1]
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(off).max() < 0.01
    patches = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    variances = np.linalg.eigvalsh(np.cov(patches.T, bias=True) + np.outer(*[patches.mean(0)] * 2))[::-1]
    np.testing.assert_allclose(np.diag(covariance), variances / (variances + 5e-4), rtol=1e-3)


def test_dirac_filters_hand_on_their_channels():
    stage = small().stage2
    x = mr.tensor(images(2, 8)[:, :1].repeat(6, 1) * np.arange(1, 7, dtype=np.float32)[:, None, None])
    y = stage.conv1(x).numpy()
    np.testing.assert_array_equal(y[:, :6], x.numpy())
    assert np.abs(y[:, 6:]).max() > 0


def test_what_is_trained():
    model = small()
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"whitening.weight", *(f"stage{i}.norm{j}.weight" for i in (1, 2, 3) for j in (1, 2, 3))}
    assert all(m.momentum == 0.4 and m.eps == 1e-12 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.slow
def test_gradients():
    model = small(width1=4, width2=4, width3=4).double()
    model.whiten(images(20))
    assert mr.gradcheck_model(model, images(3, 8).astype(np.float64))


def test_it_is_the_same_network_in_torch():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    model = small()
    model.whiten(images(50))
    state = {name: torch.tensor(np.ascontiguousarray(a)) for name, a in model.state_dict().items()}
    for name, p in model.named_parameters():
        state[name].requires_grad_(p.requires_grad)

    def norm(x, name):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-12) + state[f"{name}.bias"][:, None, None]

    x, labels = images(6, 32), np.arange(6) % 10
    y = torch.relu(F.conv2d(torch.tensor(x), state["whitening.weight"], state["whitening.bias"], padding=1))
    for i in (1, 2, 3):
        name = f"stage{i}"
        y = torch.relu(norm(F.max_pool2d(F.conv2d(y, state[f"{name}.conv1.weight"], padding=1), 2), f"{name}.norm1"))
        z = torch.relu(norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.norm2"))
        y = torch.relu(norm(F.conv2d(z, state[f"{name}.conv3.weight"], padding=1), f"{name}.norm3") + y)
    logits = y.amax((2, 3)) @ state["fc.weight"].T
    F.cross_entropy(logits, torch.tensor(labels), label_smoothing=0.2).backward()

    ours = model(mr.tensor(x))
    mr.functional.cross_entropy(ours, labels, label_smoothing=0.2).backward()
    np.testing.assert_allclose(ours.numpy(), logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, p in model.named_parameters():
        if p.requires_grad:
            theirs = state[name].grad.numpy()
            np.testing.assert_allclose(p.grad, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max(), err_msg=name)
        else:
            assert p.grad is None


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_is_recorded(mode):
    """With other images each time: what a recording does not compute again would be found."""
    model, draw = small(), np.random.default_rng(1)
    model.whiten(images(50))
    run = mr.RecordedStep(model.train()) if mode == "train" else mr.RecordedPrediction(model.eval())
    for _ in range(4):
        x = draw.standard_normal((4, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
        model.zero_grad()
        run(x, np.arange(4)) if mode == "train" else run(x)
    assert (run.state, run.reason) == ("checked", "")


def test_bad_input():
    with pytest.raises(ConfigError, match="not 0"):
        small(width2=0)
    with pytest.raises(ShapeError, match=r"images are \(N, 3, H, W\), not of shape \(2, 1, 8, 8\)"):
        small().whiten(np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(ShapeError):
        small()(mr.tensor(np.zeros((1, 3, 4, 4), np.float32)))
