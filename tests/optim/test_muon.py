import copy
import json

import numpy as np
import pytest
from parameters import give_grads, params

import minires as mr
from minires import nn
from minires.errors import ConfigError
from minires.optim import SGD, MultiOptimizer, MultiStepLR, Muon, orthogonalize

SHAPES = [(5, 4, 3, 3), (40, 2, 3, 3), (8, 8), (3, 17), (32, 16, 3, 3), (1, 5)]


def matrices(dtype=np.float64):
    """Filters and weights, the first of them stored as kernels store them."""
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        array = rng.standard_normal((*shape[1:], shape[0])).astype(dtype)
        yield np.moveaxis(array, -1, 0)


def newton_schulz(g, steps):
    """The iteration as K. Jordan writes it: a·X + (b·XXᵀ + c·(XXᵀ)²)·X, of the matrix with fewer rows than columns."""
    x = g.reshape(len(g), -1).astype(np.float64)
    wide = x if len(x) <= x.shape[1] else x.T
    wide = wide / np.linalg.norm(wide)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return (wide if len(x) <= x.shape[1] else wide.T).reshape(g.shape)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalize(backend, steps):
    for g in matrices():
        with mr.backend(backend):
            found = orthogonalize(g, steps)
        np.testing.assert_allclose(found, newton_schulz(g, steps), rtol=1e-9, atol=1e-12)
        assert np.moveaxis(found, 0, -1).flags.c_contiguous  # as g
        with mr.backend(backend):
            narrow = orthogonalize(g.astype(np.float32), steps)
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, found, rtol=1e-3, atol=1e-5)


def test_small_singular_values():
    """Of a matrix whose singular values fall by half each: the iteration in float32, of XᵀX, keeps to that in float64."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 32)))[0] for n in (200, 32))
    g = (u * 2.0 ** -np.arange(32)) @ v.T
    for steps in (3, 5):
        difference = orthogonalize(g.astype(np.float32), steps) - newton_schulz(g, steps)
        assert np.linalg.norm(difference, 2) < 1e-4  # of singular values around 1


def test_singular_values_are_near_one():
    for g in matrices():
        u, s, v = np.linalg.svd(g.reshape(len(g), -1), full_matrices=False)
        found = orthogonalize(g, 5).reshape(len(g), -1)
        values = np.diag(u.T @ found @ v.T)
        large = s > 0.02 * np.linalg.norm(s)
        assert (values[large] > 0.6).all()
        assert (values < 1.3).all()
        np.testing.assert_allclose((u * values) @ v, found, atol=1e-9)  # with the singular vectors of g


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.6, "nesterov": False}, {"scale": "match_rms_adamw"}], ids=str)
def test_steps_are_torchs(settings):
    """Torch iterates in bfloat16, with 8 bits: the steps agree to a hundredth of their length."""
    torch = pytest.importorskip("torch")
    for array in matrices():
        w = nn.Parameter(array)
        q = torch.tensor(array.reshape(len(array), -1), requires_grad=True)
        names = {"none": None, "original": "original", "match_rms_adamw": "match_rms_adamw"}
        theirs = {**settings, "adjust_lr_fn": names[settings.get("scale", "original")]}
        theirs.pop("scale", None)
        a, b = Muon([w], lr=0.02, **settings), torch.optim.Muon([q], lr=0.02, **theirs)
        for step in range(3):
            give_grads([w], step)
            q.grad = torch.tensor(w.grad.reshape(len(array), -1))
            before = w.data.copy()
            a.step()
            b.step()
            moved = np.linalg.norm(w.data - before)
            assert np.linalg.norm(w.data.reshape(len(array), -1) - q.detach().numpy()) < 0.03 * moved * (step + 1)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_variant_with_normalised_weights(nesterov):
    """As the public code for CIFAR-10 has it: v ← μv + g, w ← w·√O / ‖w‖, w ← w - lr · orthogonal(g + μv), 3 iterations."""
    for array in matrices():
        w, v, expected = nn.Parameter(array.copy()), 0.0, array.copy()
        optimizer = Muon([w], 0.24, 0.6, weight_decay=0.0, ns_steps=3, scale="none", normalize=True, nesterov=nesterov)
        for step in range(3):
            give_grads([w], step)
            g = w.grad
            v = 0.6 * v + g
            expected *= len(array) ** 0.5 / np.linalg.norm(expected)
            expected -= 0.24 * newton_schulz(g + 0.6 * v if nesterov else v, 3)
            optimizer.step()
            np.testing.assert_allclose(w.data, expected, rtol=1e-9, atol=1e-11)


def test_the_same_bits_for_any_number_of_threads():
    found = []
    for threads in (1, 2, 3):
        mr.set_num_threads(threads)
        found.append([orthogonalize(g.astype(np.float32)).tobytes() for g in matrices()])
    assert found[0] == found[1] == found[2]


def pair(parameters):
    w, b = parameters
    return MultiOptimizer([Muon([w], 0.1, weight_decay=0.0), SGD([b], 0.5, momentum=0.9)])


def test_two_optimizers_step_as_one():
    together, apart = params(), params()
    both, alone = pair(together), [Muon(apart[:1], 0.1, weight_decay=0.0), SGD(apart[1:], 0.5, momentum=0.9)]
    schedule = MultiStepLR(both, [2])
    for step in range(4):
        for parameters in (together, apart):
            give_grads(parameters, step)
        both.step()
        for optimizer in alone:
            optimizer.step()
            if step == 1:
                optimizer.param_groups[0]["lr"] *= 0.1
        schedule.step()
    assert [group["lr"] for group in both.param_groups] == pytest.approx([0.01, 0.05])
    for p, q in zip(together, apart):
        np.testing.assert_array_equal(p.data, q.data)
    both.zero_grad()
    assert all(p.grad is None for p in together)


def test_a_saved_state_of_two_optimizers():
    ours = params(np.float32)
    both = pair(ours)
    give_grads(ours, 0)
    both.step()
    twins = copy.deepcopy(ours)
    again = pair(twins)
    again.param_groups[0]["lr"] = 7.0
    state = both.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
    again.load_state_dict({**state, "state": {str(i): entry for i, entry in state["state"].items()}})
    for optimizer, parameters in ((both, ours), (again, twins)):
        give_grads(parameters, 1)
        optimizer.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(ours, twins))
    json.dumps([{**group, "params": None} for group in both.param_groups])


def test_states_that_do_not_fit():
    both = pair(params())
    give_grads(list(both.parameters()), 0)
    both.step()
    state = both.state_dict()
    with pytest.raises(ConfigError, match="the state has 1 groups of parameters, and the optimizers have"):
        both.load_state_dict({**state, "param_groups": state["param_groups"][:1]})
    with pytest.raises(ConfigError, match="a state of parameter 2, and there are 2 parameters"):
        both.load_state_dict({**state, "state": {2: {}}})
    before = copy.deepcopy(state)
    with pytest.raises(ConfigError, match=r"SGD.load_state_dict: 'step' of parameter 0 is of another optimizer"):
        both.load_state_dict({**state, "state": {0: {"momentum_buffer": np.zeros((5, 4, 3, 3))}, 1: {"step": 1}}})
    for i, entry in before["state"].items():
        np.testing.assert_array_equal(both.state_dict()["state"][i]["momentum_buffer"], entry["momentum_buffer"])
    groups = [{k: v for k, v in group.items() if k != "ns_steps"} for group in state["param_groups"]]
    with pytest.raises(ConfigError, match="a parameter group without 'ns_steps'"):
        both.load_state_dict({**state, "param_groups": groups})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda w, b: Muon([w, b]),
            r"a parameter of shape \(7,\) is no matrix: give it to another optimizer, such as SGD",
        ),
        (lambda w, b: Muon([w], momentum=1.0), "momentum is a number from 0 up and below 1, not 1.0"),
        (lambda w, b: Muon([w], ns_steps=0), "ns_steps is a whole number from 1 to 99, not 0"),
        (lambda w, b: Muon([w], scale="adam"), "scale is one of none, original, match_rms_adamw, not 'adam'"),
        (lambda w, b: MultiOptimizer([]), "there are no optimizers"),
        (lambda w, b: MultiOptimizer([Muon([w]), SGD([w, b], 0.1)]), "is given to two optimizers, or twice"),
        (lambda w, b: MultiOptimizer([Muon([w])]).add_param_group({"params": [b]}), "to one of its optimizers"),
    ],
)
def test_settings_that_cannot_work(make, says):
    with pytest.raises(ConfigError, match=says):
        make(*params())
