import copy
import pickle

import numpy as np
import pytest
from parameters import give_grads, params

import minires as mr
from minires import nn
from minires.errors import ConfigError, DtypeError, ShapeError
from minires.optim import SGD, split_decay

SETTINGS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_steps_are_torchs(settings, backend):
    torch = pytest.importorskip("torch")
    ours = params()
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    a, b = SGD(ours, lr=0.1, **settings), torch.optim.SGD(theirs, lr=0.1, **settings)
    for step in range(4):
        give_grads(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = torch.tensor(p.grad)
        if step == 2:  # a parameter without a gradient is left alone
            ours[1].grad = theirs[1].grad = None
        with mr.backend(backend):
            a.step()
        b.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)
    a.zero_grad()
    assert all(p.grad is None for p in ours)


def test_groups_have_settings_of_their_own():
    w, b = params()
    opt = SGD([{"params": [w]}, {"params": b, "lr": 0.5, "weight_decay": 0.0}], lr=0.1, weight_decay=0.1)
    give_grads([w, b], 0)
    before = [w.data.copy(), b.data.copy()]
    opt.step()
    np.testing.assert_allclose(w.data, before[0] - 0.1 * (w.grad + 0.1 * before[0]))
    np.testing.assert_allclose(b.data, before[1] - 0.5 * b.grad)


def test_split_decay_spares_norms_and_biases():
    model = mr.models.resnet20()
    decayed, spared = split_decay(model, 5e-4)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-4, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-2][:2] for p in decayed["params"]} == {"co", "fc"}
    assert {names[id(p)].split(".")[-2][:2] for p in spared["params"]} == {"bn", "fc"}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    SGD(split_decay(model, 5e-4), lr=0.1)


def test_a_saved_state_goes_on_with_the_same_bits():
    ours = params(np.float32)
    opt = SGD(ours, lr=0.1, momentum=0.9, nesterov=True)
    give_grads(ours, 0)
    opt.step()
    twins = copy.deepcopy(ours)
    state = copy.deepcopy(opt.state_dict())
    state["state"] = {
        str(i): {"momentum_buffer": np.ascontiguousarray(s["momentum_buffer"])} for i, s in state["state"].items()
    }
    again = SGD(twins, lr=1.0)
    again.load_state_dict(state)
    assert again.param_groups[0]["lr"] == 0.1
    assert again.param_groups[0]["nesterov"]
    for o, parameters in ((opt, ours), (again, twins)):
        give_grads(parameters, 1)
        o.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(ours, twins))
    assert again.state[twins[0]]["momentum_buffer"].strides == twins[0].data.strides


def test_a_state_that_does_not_fit_is_refused():
    ours = params()
    opt = SGD(ours, lr=0.1, momentum=0.9)
    give_grads(ours, 0)
    opt.step()
    with pytest.raises(ConfigError, match=r"groups of \[2\] parameters, and this optimizer has \[1\]"):
        SGD(ours[:1], lr=0.1).load_state_dict(opt.state_dict())
    with pytest.raises(ShapeError, match=r"momentum_buffer of shape \(5, 4, 3, 3\) for parameter 0 of shape \(7,\)"):
        SGD(ours[::-1], lr=0.1, momentum=0.9).load_state_dict(opt.state_dict())
    state = opt.state_dict()
    with pytest.raises(ConfigError, match="a state of parameter 5, and there are 2"):
        opt.load_state_dict({**state, "state": {5: state["state"][0]}})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda w, b: SGD([], lr=0.1), "no parameters"),
        (lambda w, b: SGD([w, w], lr=0.1), "given twice"),
        (lambda w, b: SGD([w], lr=-1), "lr must be 0 or more, not -1"),
        (lambda w, b: SGD([w], lr=0.1, momentum=float("nan")), "momentum must be 0 or more, not nan"),
        (lambda w, b: SGD([w], lr=0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda w, b: SGD([{"params": [w], "weigth_decay": 0}], lr=0.1), "did you mean weight_decay"),
        (lambda w, b: SGD([{"param": [w]}], lr=0.1), "a parameter group without 'params'"),
        (lambda w, b: SGD([w.data], lr=0.1), "leaf tensors.* not ndarray"),
        (lambda w, b: SGD([w * 2], lr=0.1), "leaf tensors"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make(*params())


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_a_copy_goes_on_with_its_momentum(duplicate, backend):
    ours = [*params(), nn.Parameter(np.array(1.0))]
    opt = SGD([{"params": ours[:1]}, {"params": ours[1:], "momentum": 0.5}], lr=0.1, momentum=0.9)
    schedule = mr.optim.MultiStepLR(opt, [2])
    with mr.backend(backend):
        give_grads(ours, 0)
        opt.step()
        twins, again, schedule_again = duplicate((ours, opt, schedule))
        for step in range(1, 4):
            for parameters, optimizer, plan in ((ours, opt, schedule), (twins, again, schedule_again)):
                give_grads(parameters, step)
                optimizer.step()
                plan.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(ours, twins, strict=True))
    assert not any(np.shares_memory(p.data, q.data) for p, q in zip(ours, twins))
    assert opt.state_dict()["state"].keys() == again.state_dict()["state"].keys() == {0, 1, 2}
    assert again.param_groups[0]["lr"] == opt.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_copied_model_and_optimizer_train_on_to_the_same_bits():
    draw = np.random.default_rng(0)
    x, labels = mr.tensor(draw.standard_normal((4, 3, 8, 8)).astype(np.float32)), draw.integers(0, 10, 4)
    mr.manual_seed(0)
    model = mr.models.resnet8()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(model, optimizer):
        optimizer.zero_grad()
        mr.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    step(model, optimizer)
    copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    for pair in ((model, optimizer), *copies):
        step(*pair)
        step(*pair)
    for other, _ in copies:
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], array)


def test_a_gradient_that_does_not_fit_stops_the_step_before_it_begins(page):
    ours = [nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))]
    opt = SGD(ours, lr=0.1, momentum=0.9)
    ours[0].grad, ours[1].grad = np.ones(2), np.ones(2)
    with pytest.raises(ShapeError) as caught:
        opt.step()
    page(str(caught.value))
    ours[1].grad = np.ones(3, np.float32)
    with pytest.raises(DtypeError, match="the gradient of parameter 1 is float32 of shape"):
        opt.step()
    assert all((p.data == 1).all() for p in ours)
    assert not opt.state
    ours[1].grad = mr.tensor(np.ones(3))
    opt.step()
    assert all((p.data == 0.9).all() for p in ours)


def test_a_velocity_that_is_not_numeric_is_refused(page):
    ours = params()
    opt = SGD(ours, lr=0.1, momentum=0.9)
    give_grads(ours, 0)
    opt.step()
    state, before = opt.state_dict(), copy.deepcopy(opt.state_dict())
    state["state"] = {0: {"momentum_buffer": np.zeros((5, 4, 3, 3))}, 1: {"momentum_buffer": np.array([None] * 7)}}
    with pytest.raises(DtypeError) as caught:
        opt.load_state_dict(state)
    page(str(caught.value))
    with pytest.raises(ConfigError, match="a state of parameter -1, and there are 2"):
        opt.load_state_dict({**state, "state": {-1: before["state"][1]}})
    for i, entry in before["state"].items():
        np.testing.assert_array_equal(opt.state_dict()["state"][i]["momentum_buffer"], entry["momentum_buffer"])


def test_a_state_without_momentum():
    """PyTorch saves None, or nothing, for a velocity that there is not."""
    opt = SGD([nn.Parameter(np.ones(3))], lr=1.0)
    group = {"lr": 0.25, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "params": [0]}
    for entry in ({}, {"momentum_buffer": None}):
        opt.load_state_dict({"state": {0: entry}, "param_groups": [group]})
    assert opt.param_groups[0]["lr"] == 0.25
    assert not opt.state


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(1, 8, 3),
        lambda: nn.Conv2d(3, 1, 3),
        lambda: nn.Conv2d(8, 8, 3, groups=8),
        lambda: nn.Conv2d(1, 1, 1),
        lambda: nn.Conv2d(4, 6, 1),
    ],
    ids=["one-channel", "one-filter", "depthwise", "one-weight", "1x1"],
)
def test_filters_with_axes_of_length_one(make, backend):
    """The strides of such axes say nothing of the order in memory."""
    with mr.backend(backend):
        conv = make()
        before = conv.weight.data.copy()
        optimizer = SGD(conv.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        gradient = np.random.default_rng(0).standard_normal(before.shape).astype(np.float32)
        for _ in range(2):
            for p in conv.parameters():
                p.grad = gradient if p is conv.weight else np.zeros_like(p.data)
            optimizer.step()
        # v = g, 1.9 g; w = w - lr·(g + 0.9 v)
        np.testing.assert_allclose(
            conv.weight.data, before - 0.1 * (1.9 + 1 + 0.9 * 1.9) * gradient, rtol=1e-4, atol=1e-6
        )
