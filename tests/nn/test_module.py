import copy

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import ConfigError, DtypeError, ShapeError
from minires.kernels.memory_format import hwio


class Scale(nn.Module):
    """No super().__init__(), on purpose."""

    def __init__(self, n=3):
        self.weight = nn.Parameter(np.full(n, 2.0, np.float32))
        self.register_buffer("seen", np.array(0, np.int64))
        self.inner = nn.Linear(n, 2)

    def forward(self, x):
        return self.inner(x * self.weight)


def net():
    mr.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def ones(*shape):
    return mr.tensor(np.ones(shape, np.float32))


# --- what is inside


def test_attributes_are_registered_by_what_they_are():
    m = Scale()
    assert [name for name, _ in m.named_parameters()] == ["weight", "inner.weight", "inner.bias"]
    assert [name for name, _ in m.named_buffers()] == ["seen"]
    assert [name for name, _ in m.named_parameters(recurse=False)] == ["weight"]
    assert [len(list(p)) for p in (m.parameters(), m.parameters(recurse=False))] == [3, 1]
    assert [len(list(b)) for b in (m.inner.buffers(), m.buffers(recurse=False))] == [0, 1]
    assert [name for name, _ in m.named_modules()] == ["", "inner"]
    assert list(m.children()) == [m.inner]
    assert list(m.state_dict()) == ["weight", "seen", "inner.weight", "inner.bias"]
    m.weight = None
    assert [name for name, _ in m.named_parameters()] == ["inner.weight", "inner.bias"]
    del m.inner
    assert list(m.parameters()) == []


def test_an_attribute_stays_of_its_kind():
    m = Scale()
    with pytest.raises(ConfigError, match=r"Scale\.weight is a Parameter and cannot become a Tensor"):
        m.weight = ones(3)
    with pytest.raises(ConfigError, match=r"Scale\.inner is a Module and cannot become a function"):
        m.inner = lambda x: x
    with pytest.raises(ConfigError, match=r"Scale\.seen is a buffer.* cannot become a int"):
        m.seen = 3
    with pytest.raises(DtypeError, match="must be an ndarray, not list"):
        m.register_buffer("more", [1])
    m.weight = nn.Parameter(np.ones(3, np.float32))
    m.seen = np.array(7)
    assert m.state_dict()["seen"] == 7


def test_shared_parameters_and_modules_count_once_and_are_saved_twice():
    m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    m[1].weight = m[0].weight
    assert [name for name, _ in m.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    layer = nn.Linear(2, 2)
    m = nn.Sequential(layer, layer)
    assert len(list(m.modules())) == 2
    assert list(m.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_parameter_is_a_leaf_that_requires_a_gradient():
    p = nn.Parameter(np.ones(2))
    assert p.requires_grad
    assert p.is_leaf
    assert isinstance(p, mr.Tensor)
    assert repr(p).startswith("Parameter containing:\ntensor(")
    assert nn.Parameter(ones(2)).dtype == np.float32
    with pytest.raises(DtypeError, match="int64"):
        nn.Parameter(np.ones(2, np.int64))


def test_train_eval_apply_zero_grad_requires_grad():
    m = net()
    assert not m.eval()[1].training
    assert m.train()[1].training
    seen = []
    m.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear", "Sequential"]
    m(ones(2, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in m.parameters())
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())
    m.requires_grad_(False)
    assert not m(ones(2, 3, 4, 4)).requires_grad


def test_forward_must_be_written():
    with pytest.raises(NotImplementedError, match=r"Module has no forward"):
        nn.Module()(1)


def test_double_and_float_keep_the_memory_order():
    m = net().double()
    assert {p.dtype for p in m.parameters()} == {np.dtype(np.float64)}
    assert m[1].running_mean.dtype == np.float64
    assert m[1].num_batches_tracked.dtype == np.int64
    assert np.shares_memory(hwio(m[0].weight.data), m[0].weight.data)  # still stored (KH, KW, I, O)
    assert m(mr.tensor(np.ones((2, 3, 4, 4)))).dtype == np.float64
    assert {p.dtype for p in m.float().parameters()} == {np.dtype(np.float32)}
    with pytest.raises(DtypeError, match="not in float16"):
        m.to(np.float16)


def test_a_copy_is_independent():
    m = net()
    twin = copy.deepcopy(m)
    twin[0].weight.data[...] = 0
    twin[1].num_batches_tracked += 1
    assert m[0].weight.data.any()
    assert m[1].num_batches_tracked == 0
    assert np.shares_memory(hwio(twin[0].weight.data), twin[0].weight.data)


def test_repr_is_pytorchs():
    assert repr(nn.Sequential(net()[0], nn.Sequential({"act": nn.LeakyReLU(0.2)}))) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), bias=False)\n"
        "  (1): Sequential(\n"
        "    (act): LeakyReLU(negative_slope=0.2)\n"
        "  )\n"
        ")"
    )


# --- state


def test_state_goes_round():
    a, b = net(), net()
    a(ones(2, 3, 4, 4))
    state = {key: array.copy() for key, array in a.state_dict().items()}
    assert state["1.num_batches_tracked"].shape == ()
    assert state["1.num_batches_tracked"] == 1
    order = b[0].weight.data.strides
    held = b.state_dict()["1.running_mean"]
    assert b.load_state_dict(state) == ([], [])
    assert b[0].weight.data.strides == order  # the state's was C order
    assert np.shares_memory(held, b[1].running_mean)
    assert all(np.array_equal(b.state_dict()[key], state[key]) for key in state)


def test_load_names_every_key_that_does_not_fit_and_changes_nothing():
    m = net()
    before = {key: array.copy() for key, array in m.state_dict().items()}
    state = {key: array + 1 for key, array in before.items()}
    state["4.wieght"] = state.pop("4.weight")
    state["1.bias"] = np.zeros(7)
    del state["0.weight"]
    with pytest.raises(ConfigError) as caught:
        m.load_state_dict(state)
    message = str(caught.value)
    assert "1 misshapen: 1.bias is (7,) in the state and (4,) in the model" in message
    assert "2 missing: 0.weight, 4.weight" in message
    assert "1 unexpected: 4.wieght (did you mean 4.weight" in message
    with pytest.raises(ConfigError, match="1 misshapen") as caught:
        m.load_state_dict(state, strict=False)
    assert "missing" not in str(caught.value)
    assert all(np.array_equal(m.state_dict()[key], before[key]) for key in before)


def test_load_what_fits():
    m = net()
    missing, unexpected = m.load_state_dict({"4.bias": mr.tensor(np.arange(5.0)), "head": np.ones(1)}, strict=False)
    assert missing == [key for key in m.state_dict() if key != "4.bias"]
    assert unexpected == ["head"]
    np.testing.assert_array_equal(m[4].bias.data, np.arange(5, dtype=np.float32))
    assert m[4].bias.dtype == np.float32


def test_a_long_list_of_keys_is_cut():
    with pytest.raises(ConfigError, match=r"122 missing: conv1\.weight.* and 102 more"):
        mr.models.resnet18().load_state_dict({})


# --- containers


def test_sequential_and_module_list():
    m = net()
    assert len(m) == 5
    assert isinstance(m[-1], nn.Linear)
    assert len(m[:2]) == 2
    named = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    assert [name for name, _ in named[1:].named_children()] == ["b"]
    named[0] = nn.Sigmoid()
    assert isinstance(named.a, nn.Sigmoid)
    blocks = nn.ModuleList([nn.ReLU()]).append(nn.Linear(2, 3))
    assert type(blocks[1:]) is nn.ModuleList
    assert list(blocks[1:]) == [blocks[1]]
    assert [type(b).__name__ for b in blocks] == ["ReLU", "Linear"]
    assert [name for name, _ in blocks.named_parameters()] == ["1.weight", "1.bias"]
    with pytest.raises(ConfigError, match="'0' is not a Module but a int"):
        nn.Sequential(3)
    with pytest.raises(ConfigError, match="without dots"):
        nn.Sequential({"a.b": nn.ReLU()})


# --- errors


def test_a_shape_error_gets_the_path_from_the_outermost_module():
    m = nn.Sequential({"body": nn.Sequential(nn.ReLU(), nn.Linear(4, 2))})
    with pytest.raises(ShapeError) as caught:
        m(ones(1, 3))
    assert caught.value.path == "body.1"
    assert caught.value.module is m.body[1]
    with pytest.raises(ShapeError) as caught:
        m.body[1](ones(1, 3))
    assert caught.value.path == "Linear"


@pytest.mark.parametrize(
    "value",
    [
        np.array(["text"] * 5),
        np.array([None] * 5),
        [[1], [2, 3], 4, 5, 6],
        np.ones(5, complex),
        np.zeros(5, "M8[s]"),
        None,
    ],
    ids=["text", "objects", "ragged", "complex", "dates", "none"],
)
@pytest.mark.parametrize("name", ["0.weight", "4.bias"])
def test_a_state_that_is_not_numeric_changes_nothing(name, value):
    m = net()
    before, state = copy.deepcopy(m.state_dict()), {key: array + 1 for key, array in m.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(DtypeError, match=f"{name} is no array of numbers"):
            m.load_state_dict({**state, name: value}, strict=strict)
        for key, array in m.state_dict().items():
            np.testing.assert_array_equal(array, before[key])
    assert m.load_state_dict({**state, "notes": value}, strict=False) == ([], ["notes"])
