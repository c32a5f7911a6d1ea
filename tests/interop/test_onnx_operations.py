"""Every operation in ONNX, and every kind of network that a user may write, against ONNX Runtime; what is refused, by name."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import interop, nn
from minires.errors import ExportError, MiniresError


@pytest.fixture(autouse=True)
def onnx():
    """The package; not for the whole file, whose tests docs/errors.md names."""
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


class Function(nn.Module):
    """A network that is one function of the images."""

    def __init__(self, function, **parts):
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def parameter(*shape):
    return nn.Parameter(np.random.default_rng(5).standard_normal(shape).astype(np.float32))


def norm(channels=3, **options):
    found = nn.BatchNorm2d(channels, **options)
    if found.running_mean is not None:
        rng = np.random.default_rng(6)
        found.running_mean[...], found.running_var[...] = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    return found


OPERATIONS = {
    "abs": lambda m, x: F.abs(x),
    "add": lambda m, x: x + x * 2 + 1,
    "add_relu": lambda m, x: F.add_relu(x, -x * 0.5),
    "avg_pool2d": lambda m, x: F.avg_pool2d(x, (3, 2), 2, (1, 0)),
    "avg_pool2d, border not counted": lambda m, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "batch_norm": Function(lambda m, x: m.norm(x), norm=norm()),
    "batch_norm of rows": Function(
        lambda m, x: F.batch_norm(x.mean((2, 3)), np.ones(3, "f4"), np.full(3, 2, "f4"), m.w, m.b),
        w=parameter(3),
        b=parameter(3),
    ),
    "batch_norm without a scale": Function(lambda m, x: m.norm(x), norm=norm(affine=False, eps=1e-12)),
    "cat": lambda m, x: F.cat([x, x * 2, x[:, :1]], 1),
    "cat of rows": lambda m, x: F.cat([x, x * 2], 2),
    "clip": lambda m, x: F.clip(x, -0.5, 0.25),
    "clip above": lambda m, x: x.clip(max=0.1),
    "clip by channels": lambda m, x: x.clip(np.array([-1.0, 0.0, 0.5], "f4")[:, None, None]),
    "clip by nothing": lambda m, x: x.clip() * 1,
    "conv2d": Function(lambda m, x: m.conv(x), conv=nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0), bias=True)),
    "conv2d in groups, dilated": Function(
        lambda m, x: m.conv(x), conv=nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3, bias=False)
    ),
    "conv_bn": Function(lambda m, x: F.conv_bn(x, m.conv, m.norm), conv=nn.Conv2d(3, 4, 3), norm=norm(4)),
    "conv_bn_relu": Function(lambda m, x: F.conv_bn_relu(x, m.conv, m.norm), conv=nn.Conv2d(3, 4, 3), norm=norm(4)),
    "conv_bn_add_relu": Function(
        lambda m, x: F.conv_bn_add_relu(x, m.conv, m.norm, x), conv=nn.Conv2d(3, 3, 1, bias=False), norm=norm()
    ),
    "bn_relu": Function(lambda m, x: F.bn_relu(x, m.norm), norm=norm()),
    "bn_relu_conv": Function(lambda m, x: F.bn_relu_conv(x, m.norm, m.conv), conv=nn.Conv2d(3, 3, 1), norm=norm()),
    "bn_relu_conv_add": Function(
        lambda m, x: F.bn_relu_conv_add(x, m.norm, m.conv, x), conv=nn.Conv2d(3, 3, 1, bias=False), norm=norm()
    ),
    "div": lambda m, x: x / (x.abs() + 1) + 1 / (x * x + 1),
    "dropout": Function(lambda m, x: m.drop(x) * 1, drop=nn.Dropout(0.9)),
    "exp": lambda m, x: F.exp(x),
    "flatten": Function(lambda m, x: m.fc(F.flatten(x, 1)), fc=nn.Linear(3 * 8 * 8, 5)),
    "gelu": lambda m, x: F.gelu(x),
    "gelu by tanh": lambda m, x: F.gelu(x, "tanh"),
    "getitem": lambda m, x: x[:, 1:, ::-2, -3:-1],
    "getitem, an axis that goes": lambda m, x: x[:, -1, ..., 2],
    "getitem, an axis that comes": lambda m, x: x[:, None, 0, ..., None],
    "getitem, backwards": lambda m, x: x[:, ::-1, 5:1:-2],
    "getitem, nothing": lambda m, x: x[...] * 1,
    "getitem, one image": lambda m, x: x[0],
    "global_avg_pool2d": lambda m, x: F.global_avg_pool2d(x),
    "global_max_pool2d": lambda m, x: F.global_max_pool2d(x),
    "interpolate": lambda m, x: F.interpolate(x, (11, 5)),
    "interpolate, bilinear": lambda m, x: F.interpolate(x, (11, 5), mode="bilinear"),
    "interpolate, by corners": lambda m, x: F.interpolate(x, 16, mode="bilinear", align_corners=True),
    "interpolate, by a factor": lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "leaky_relu": lambda m, x: F.leaky_relu(x, 0.2),
    "linear of many axes": Function(lambda m, x: m.fc(x), fc=nn.Linear(8, 5)),
    "linear without a bias": Function(lambda m, x: m.fc(x), fc=nn.Linear(8, 5, bias=False)),
    "log": lambda m, x: F.log(x * x + 1),
    "log_softmax": lambda m, x: F.log_softmax(x, 1),
    "matmul": Function(lambda m, x: x @ m.w, w=parameter(8, 4)),
    "matmul of two": lambda m, x: x @ x.transpose(2, 3),
    "max": lambda m, x: x.max((2, 3), keepdim=True),
    "max_pool2d": lambda m, x: F.max_pool2d(x, 3, 2, 1),
    "max_pool2d, dilated": lambda m, x: F.max_pool2d(x, 2, 1, dilation=3),
    "mean": lambda m, x: x.mean(1),
    "min": lambda m, x: x.min(-1),
    "mul": Function(lambda m, x: x * m.w * 0.5, w=parameter(3, 1, 1)),
    "neg": lambda m, x: -x,
    "pad": lambda m, x: F.pad(x, (1, 2, 0, 3, 1, 0), value=0.5),
    "pad by nothing": lambda m, x: F.pad(x, (0, 0)) + 1,
    "permute": lambda m, x: x.permute(0, 2, 3, 1),
    "pow": lambda m, x: (x.abs() + 0.1) ** 1.5,
    "relu": lambda m, x: F.relu(x),
    "reshape": lambda m, x: x.reshape(x.shape[0], 3, 64).transpose(1, 2),
    "reshape, images into rows": lambda m, x: x.reshape(x.shape[0] * 3, 64),
    "reshape, open": lambda m, x: x.reshape(-1, 2, 96),
    "residual_add": lambda m, x: F.residual_add(x * 2, x),
    "sigmoid": lambda m, x: F.sigmoid(x),
    "softmax": lambda m, x: F.softmax(x, 1),
    "sqrt": lambda m, x: F.sqrt(x.abs()),
    "stack": lambda m, x: F.stack([x, x * 2], 1),
    "sub": lambda m, x: 1 - x - x * x,
    "sum": lambda m, x: x.sum((1, 3)) + 0,
    "sum of everything": lambda m, x: x.sum() * 1e-3,
    "tanh": lambda m, x: F.tanh(x),
    "transpose": lambda m, x: x.transpose(1, 3),
    "zero_pad_shortcut": lambda m, x: F.zero_pad_shortcut(x, 2, 1, 2),
    "zero_pad_shortcut of the same size": lambda m, x: F.zero_pad_shortcut(x, 1, 0, 2),
    "detach": lambda m, x: x * 2 + x.detach(),
    "a weight that is computed": Function(lambda m, x: x * (m.w * m.w).sum().sqrt(), w=parameter(4)),
    "the images themselves": lambda m, x: x,
    "in float64 between": lambda m, x: x.astype("f8").astype("f4") * 2,
}


def module(case):
    return case if isinstance(case, nn.Module) else Function(case)


def run(path, x):
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})


def same(model, path, *shapes):
    """ONNX Runtime's outputs are the network's."""
    model.eval()
    for seed, shape in enumerate(shapes):
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        y = model(mr.tensor(x))
        for ours, theirs in zip(y if isinstance(y, (list, tuple)) else [y], run(path, x), strict=True):
            assert theirs.shape == ours.shape
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4 * max(np.abs(ours.numpy()).max(), 1))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, tmp_path):
    model = module(OPERATIONS[name])
    for fold in (True, False) if "bn" in name else (True,):
        found = interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, in_channels=3, fold_batch_norm=fold)
        assert found.difference < 1e-5
        same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))


def test_every_function_is_there():
    others = {"cross_entropy", "mse_loss", "linear"}  # losses; linear has its own names above
    missing = set(F.__all__) - {name.split(",")[0].split()[0] for name in OPERATIONS} - others
    assert not missing


# --- the size of the images, too


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.global_avg_pool2d(x),
        lambda m, x: F.global_max_pool2d(x[:, :, 1:-1:2]),
        lambda m, x: x.mean((2, 3)),
        lambda m, x: F.zero_pad_shortcut(F.avg_pool2d(x, 3, 2, 1), 2, 1, 1),
        lambda m, x: F.flatten(x, 1),
        lambda m, x: F.flatten(x, 2).transpose(1, 2),
        lambda m, x: x.reshape(-1),
    ],
)
def test_any_size(function, tmp_path):
    model = Function(function)
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=(16, 24), in_channels=3, dynamic_size=True)
    same(model, tmp_path / "a.onnx", (1, 3, 16, 24), (3, 3, 19, 33))


def test_a_fixed_size_is_in_the_file(tmp_path, onnx):
    model = Function(lambda m, x: F.global_avg_pool2d(x))
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=(8, 9), in_channels=3)
    taken = onnx.load(tmp_path / "a.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in taken] == ["batch", 3, 8, 9]
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, in_channels=3, dynamic_size=True)
    taken = onnx.load(tmp_path / "a.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in taken] == ["batch", 3, "height", "width"]


# --- networks that return several tensors, or use a layer twice


def test_several_outputs(tmp_path, onnx):
    def maps(m, x):
        y = F.relu(x)
        return [y, F.max_pool2d(y, 2), y]

    model = Function(maps)
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, in_channels=3)
    names = [o.name for o in onnx.load(tmp_path / "a.onnx").graph.output]
    assert names == ["output_0", "output_1", "output_2"]
    same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))


@pytest.mark.parametrize("fold", [True, False])
def test_a_layer_that_is_used_twice_is_there_once(fold, tmp_path, onnx):
    def twice(m, x):
        return m.norm(m.conv(m.norm(m.conv(x)))) + m.conv(x)

    model = Function(twice, conv=nn.Conv2d(3, 3, 1, bias=False), norm=norm())
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, fold_batch_norm=fold)
    same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))
    names = [i.name for i in onnx.load(tmp_path / "a.onnx").graph.initializer]
    assert len(names) == (3 if fold else 5), names


def test_a_convolution_that_others_read_keeps_its_batch_norm(tmp_path, onnx):
    def forked(m, x):
        y = m.conv(x)
        return m.norm(y) + y

    model = Function(forked, conv=nn.Conv2d(3, 3, 1), norm=norm())
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)
    assert [n.op_type for n in onnx.load(tmp_path / "a.onnx").graph.node] == ["Conv", "BatchNormalization", "Add"]
    same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))


def test_hooks_are_seen(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    model[0].register_forward_hook(lambda module, inputs, y: y * 2)
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)
    same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))


def test_modes_and_statistics_stay(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4), nn.Dropout(0.5))
    model[2].eval()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


# --- what is refused


def loop(m, x):
    for _ in range(x.shape[0]):
        x = x * 2
    return x


REFUSED = {
    "a constant of the batch's size": (
        lambda m, x: x + mr.tensor(np.ones((x.shape[0], 1, 1, 1), np.float32)),
        r"add in the network takes an array that follows from the images, or from their number",
    ),
    "a number computed from the pixels": (lambda m, x: x * float(x.numpy().max()), "mul in the network takes an array"),
    "values that NumPy computes": (lambda m, x: mr.tensor(np.tanh(x.numpy())) + x, "add in the network takes an array"),
    "the number of images as a number": (lambda m, x: x * x.shape[0], "mul in the network takes an array"),
    "a loop over the images": (loop, "Function computes other operations for other images"),
    "a part of the batch": (lambda m, x: x[: x.shape[0] - 1], "slice in the network has settings that depend on"),
    "an array as an index": (lambda m, x: x[:, np.array([0, 2])], "slice in the network has an array as an index"),
    "a mask": (lambda m, x: x[:, [True, False, True]], "slice in the network has an array as an index"),
    "dropout that is always on": (lambda m, x: F.dropout(x, 0.5), "dropout in the network has no counterpart in ONNX"),
    "statistics of the batch": (
        Function(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(3, track_running_stats=False)),
        r"batchnorm in norm normalises by the statistics of the batch, .* track_running_stats=True",
    ),
    "no images": (lambda m, x: mr.tensor([1.0]), "what Function returns does not follow from the images"),
    "a dict": (lambda m, x: {"a": x}, "Function returns dict, where a Tensor or a list of Tensors can be exported"),
    "an array": (lambda m, x: x.numpy(), "Function returns ndarray"),
}
ON_THE_PAGE = "a constant of the batch's size", "a loop over the images"  # docs/errors.md


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path, page):
    case, message = REFUSED[name]
    with pytest.raises(ExportError, match=message) as caught:
        interop.export_onnx(module(case), tmp_path / "a.onnx", image_size=8, in_channels=3)
    assert not list(tmp_path.iterdir())
    if name in ON_THE_PAGE:
        page(str(caught.value))


def test_an_operation_of_ones_own_is_named(tmp_path, page):
    from minires.tensor import Op

    class Cube(Op):
        def forward(self, x):
            return x**3

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Function(lambda m, x: Cube().apply(x)))
    with pytest.raises(ExportError) as caught:
        interop.export_onnx(model, tmp_path / "a.onnx", image_size=8)
    page(str(caught.value))


def test_what_cannot_be_seen_is_noticed_by_the_comparison(tmp_path, page):
    def in_place(m, x):
        y = x * 1
        y.data[...] = 7
        return y

    with pytest.raises(ExportError) as caught:
        interop.export_onnx(Function(in_place), tmp_path / "a.onnx", image_size=8, in_channels=3)
    page(str(caught.value))
    assert not list(tmp_path.iterdir())


def test_rounding_is_no_difference(tmp_path):
    """The logistic map is chaotic: the last bit of its first value, in which libraries differ, becomes the first."""

    def logistic(m, x):
        y = F.sigmoid(x)
        for _ in range(60):
            y = y * (1 - y) * 3.95
        return y

    found = interop.export_onnx(Function(logistic), tmp_path / "a.onnx", image_size=8, in_channels=3)
    assert 0.1 < found.difference < 1


NEEDS_A_SIZE = {
    r"reshape in the network has more than one length that depends": lambda m, x: x.transpose(2, 3).reshape(
        -1, *x.shape[2:]
    ),
    r"avgpool2d in the network has windows that depend on the size": lambda m, x: F.avg_pool2d(x, (x.shape[2], 1)),
    r"slice in the network has settings that depend on the images": lambda m, x: x[:, :, : x.shape[2] // 2],
    r"matmul: shapes .* do not go together": lambda m, x: F.flatten(x, 2) @ m.w,
}


@pytest.mark.parametrize("message", NEEDS_A_SIZE)
def test_what_needs_a_size_is_refused_for_any_size(message, tmp_path):
    model = Function(NEEDS_A_SIZE[message], w=parameter(64, 2))
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, in_channels=3)
    with pytest.raises(MiniresError, match=message):
        interop.export_onnx(model, tmp_path / "b.onnx", image_size=8, in_channels=3, dynamic_size=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_factors_that_float32_does_not_hold(tmp_path):
    """⌊100 · 0.7⌋ is 70 and ⌊90 · 0.7⌋ is 62, in float64 as in PyTorch, and 69 or 70 and 63 with ONNX's float32."""
    model = Function(lambda m, x: F.interpolate(x, scale_factor=(0.7, 0.7), mode="bilinear"))
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=(100, 90), in_channels=1)
    same(model, tmp_path / "a.onnx", (1, 1, 100, 90), (7, 1, 100, 90))


def test_a_factor_that_depends_on_the_images_is_a_size(tmp_path):
    def to_24(m, x):
        return F.interpolate(x, scale_factor=(24 / x.shape[2], 24 / x.shape[3]), mode="bilinear")

    model = Function(to_24)
    interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, in_channels=1, dynamic_size=True)
    same(model, tmp_path / "a.onnx", (1, 1, 8, 8), (2, 1, 12, 32))


def test_gelu_needs_opset_20(tmp_path):
    with pytest.raises(ExportError, match="gelu in the network is there in ONNX from opset 20 on, not in 19"):
        interop.export_onnx(module(OPERATIONS["gelu"]), tmp_path / "a.onnx", image_size=8, opset=19)


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_earlier_opsets(opset, tmp_path):
    model = Function(lambda m, x: F.pad(m.conv(x).mean((2,))[:, None], (1, 1)), conv=nn.Conv2d(3, 4, 3))
    assert interop.export_onnx(model, tmp_path / "a.onnx", image_size=8, opset=opset).opset == opset
    same(model, tmp_path / "a.onnx", (1, 3, 8, 8), (7, 3, 8, 8))
