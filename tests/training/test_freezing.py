"""Frozen parts: no gradients, no launches of backward kernels below the lowest trained part, statistics that stay."""

import re
from collections import Counter

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.errors import ConfigError
from minires.nn import BatchNorm2d, Dropout
from minires.random import get_rng_state
from minires.tensor import Tensor
from minires.training.diagnosis import Batch, Trace, diagnose
from minires.training.freezing import freeze, parts
from minires.training.trainer import evaluate

FROZEN = ["stem", "layer1", "layer2"]
BELOW = ["stem", "stages.0", "stages.1", "conv1", "bn1", "layer1", "layer2"]
BELOW += [f"features.{name}" for name in ("conv0", "denseblock1", "transition1", "denseblock2", "transition2")]

OTHER_NAMES = {
    "preresnet8": {"fc": "head", "layer1.0.bn2": "stages.0.blocks.0.norm2"},
    "densenet": {"fc": "classifier", "layer1.0.bn2": "features.denseblock1.denselayer1.norm2"},
}


def network(name="resnet8", names=FROZEN, **options):
    mr.manual_seed(0)
    model = mr.models.CifarDenseNet(10, growth=4) if name == "densenet" else mr.models.create(name, **options)
    for module in model.modules():  # as if trained: other statistics than to begin with
        if isinstance(module, BatchNorm2d):
            rng = np.random.default_rng(len(module.running_mean))
            module.running_mean[...] = rng.normal(0, 0.1, module.num_features)
            module.running_var[...] = rng.uniform(0.5, 2, module.num_features)
    freeze(model, names)
    return model.train()


def batch(size=32, images=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(images, 3, size, size)).astype(np.float32), np.arange(images) % 10


def gradients(model):
    return {name: None if p.grad is None else p.grad for name, p in model.named_parameters()}


def under(path, names):
    return any(path == name or path.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize(
    ("name", "stem", "stages", "rest"),
    [
        ("resnet20", ["conv1", "bn1"], ["layer1", "layer2", "layer3"], ["fc"]),
        ("plain8", ["conv1", "bn1"], ["layer1", "layer2", "layer3"], ["fc"]),
        ("preresnet20", ["stem"], ["stages.0", "stages.1", "stages.2"], ["norm", "head"]),
        ("resnet18", ["conv1", "bn1"], ["layer1", "layer2", "layer3", "layer4"], ["fc"]),
        ("resnet50v2", ["stem"], ["stages.0", "stages.1", "stages.2", "stages.3"], ["norm", "head"]),
        ("whitened_resnet11", ["whitening"], ["stage1", "stage2", "stage3"], ["fc"]),
    ],
)
def test_parts_of_the_families(name, stem, stages, rest):
    model = mr.models.create(name)
    paths = {id(module): path for path, module in model.named_modules()}
    found = {part: [paths[id(module)] for module in modules] for part, modules in parts(model).items()}
    layers = {f"layer{i + 1}": [path] for i, path in enumerate(stages)}
    assert found == {"stem": stem, **layers, **{name: [name] for name in rest}}


def test_every_network_is_the_sum_of_its_parts():
    for name in mr.models.names():
        if re.search(r"(32|34|44|50|56|101|110|152|164|1001|1202)(v2|_\w+)?$", name):
            continue  # which are the others, deeper
        model = mr.models.create(name)
        found = [id(p) for modules in parts(model).values() for module in modules for p in module.parameters()]
        assert sorted(found) == sorted(id(p) for p in model.parameters()), name


def test_what_is_between_two_stages_is_of_the_first():
    """The layout of DenseNets: blocks with transitions between them, in a container or not."""

    def net(*names):
        return mr.nn.Sequential({name: mr.nn.BatchNorm2d(1) for name in names})

    for names in (
        ("conv1", "block1", "trans1", "block2", "trans2", "block3", "bn1", "fc"),
        ("conv0", "denseblock1", "transition1", "denseblock2", "transition2", "denseblock3", "norm5", "classifier"),
    ):
        plain = {name: len(modules) for name, modules in parts(net(*names)).items()}
        assert plain == {"stem": 1, "layer1": 2, "layer2": 2, "layer3": 1, names[-2]: 1, names[-1]: 1}
        inside = mr.nn.Sequential({"features": net(*names[:-1]), "fc": mr.nn.Linear(1, 1)})
        assert list(parts(inside)) == ["stem", "layer1", "layer2", "layer3", f"features.{names[-2]}", "fc"]


def test_frozen_parts_stay_in_evaluation_mode_and_are_not_trained():
    model = network()
    for _ in range(2):
        for path, module in model.named_modules():
            assert module.training != under(path, ["conv1", "bn1", "layer1", "layer2"])
        for path, p in model.named_parameters():
            assert p.requires_grad != under(path, ["conv1", "bn1", "layer1", "layer2"])
        images, labels = batch()
        evaluate(model, [(images, labels)])  # which returns every module to its mode
        model.eval().train()
    freeze(model, [])
    assert model.training


def test_paths_are_names_too():
    model = network(names=["layer1.0.conv1", "bn1"])
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "bn1.weight",
        "bn1.bias",
        "layer1.0.conv1.weight",
    ]


def test_a_path_is_that_module_where_stages_are_counted_from_0():
    def net():
        return mr.nn.Sequential({name: mr.nn.Linear(2, 2) for name in ("conv", "layer0", "layer1", "layer2", "fc")})

    for names, frozen in ((["layer1"], ["layer1"]), (["layer0", "stem"], ["conv", "layer0"]), (["layer3"], ["layer2"])):
        model = net()
        freeze(model, names)
        assert [name for name, child in model.named_children() if child.frozen] == frozen


def test_what_a_network_of_ones_own_calls_frozen_changes_no_mode():
    class Net(mr.nn.Module):
        def __init__(self):
            self.frozen = mr.nn.Sequential(mr.nn.Linear(2, 2))

    assert all(module.training for module in Net().eval().train().modules())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["layer11"],
            r"there is no part 'layer11' to freeze \(did you mean layer1, .*\): the network has stem, layer1, ",
        ),
        (["layer1", "stam"], r"there is no part 'stam' to freeze \(did you mean stem\?\)"),
        ([""], "there is no part '' to freeze: the network has stem, layer1, layer2, layer3, fc"),
        (["avgpool"], "there is no part 'avgpool' to freeze"),  # which has nothing to train
        ([3], "there is no part 3 to freeze"),
        (
            ["fc", "layer3", "layer2", "layer1", "stem"],
            "freezing fc, layer3, layer2, layer1, stem leaves nothing to train: leave out stem, or another part",
        ),
    ],
)
def test_names_that_cannot_be(names, said):
    model = mr.models.resnet8()
    with pytest.raises(ConfigError, match=said):
        freeze(model, names)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["resnet8", "preresnet8"])
def test_gradients_are_those_of_the_rest_of_the_network_alone(name, fused):
    """The same bits as a network that begins where the frozen parts end, on what these give in evaluation mode."""
    images, labels = batch()
    frozen, twin = network(name), network(name, [])
    top = twin.stages if name == "preresnet8" else (twin.layer1, twin.layer2, twin.layer3)
    with mr.fusion(fused):
        loss, logits = mr.RecordedStep(frozen)(images, labels)
        twin.eval()
        with mr.no_grad():
            x = (
                twin.stem(Tensor(images))
                if name == "preresnet8"
                else F.conv_bn_relu(Tensor(images), twin.conv1, twin.bn1)
            )
            x = top[1](top[0](x))
        twin.train()
        x = top[2](Tensor(x.data.copy(order="K")))
        y = twin.head(F.bn_relu(x, twin.norm)) if name == "preresnet8" else twin.fc(F.flatten(twin.avgpool(x), 1))
        expected = F.cross_entropy(y, labels)
        expected.backward()
    np.testing.assert_array_equal(logits, y.data)
    assert loss == expected.data
    found, own = gradients(frozen), gradients(twin)
    for path, gradient in own.items():
        if gradient is None:
            assert found[path] is None
        else:
            np.testing.assert_array_equal(found[path], gradient, err_msg=path)
    state, other = frozen.state_dict(), twin.state_dict()
    for path, array in network(name).state_dict().items():
        assert np.array_equal(state[path], array) or not under(path, BELOW)
    for path, array in other.items():
        if not under(path, BELOW):
            np.testing.assert_array_equal(state[path], array, err_msg=path)


@pytest.mark.parametrize(
    "names", [FROZEN, ["stem"], ["layer2"], ["stem", "layer3"], ["layer3", "fc"], ["layer1.0.bn2"]]
)
@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "resnet8-B", "densenet"])
def test_fused_as_unfused(name, names):
    """Also where a frozen part is above a trained one, whose gradients go through it."""
    other = OTHER_NAMES.get(name, {})
    names = [other.get(part, part) for part in names]
    options = {"option": "B"} if name.endswith("-B") else {}
    images, labels = batch()
    found = []
    for fused in (True, False):
        model = network(name.removesuffix("-B"), names, **options).double()
        with mr.fusion(fused):
            mr.RecordedStep(model)(images.astype(np.float64), labels)
        found.append((gradients(model), model.state_dict()))
    (a, state), (b, other) = found
    assert any(gradient is not None for gradient in a.values())
    for path, gradient in a.items():
        assert (gradient is None) == (b[path] is None) == (not dict(model.named_parameters())[path].requires_grad)
        if gradient is not None:
            np.testing.assert_allclose(gradient, b[path], rtol=1e-9, atol=1e-9, err_msg=path)
    for path, array in state.items():
        np.testing.assert_allclose(array, other[path], rtol=1e-12, err_msg=path)


@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "densenet"])
def test_the_backward_pass_ends_at_the_lowest_trained_part(name):
    """Operation by operation, by where each was recorded."""
    images, labels = batch()
    watch = Trace()
    assert diagnose(network(name), Batch(images, labels, get_rng_state()), watch) is None
    paths = {phase: {op.path for op in watch.operations if op.phase == phase} for phase in ("forward", "backward")}
    assert any(under(path, BELOW) for path in paths["forward"])
    assert paths["backward"]
    assert not any(under(path, BELOW) for path in paths["backward"])


def launches(names, model_name="resnet8"):
    """How often each kernel is launched in a step that is run from its recording."""
    images, labels = batch()
    model = network(model_name, names)
    step = mr.RecordedStep(model)
    for _ in range(4):
        step(images, labels)
    assert step.state == "checked", step.reason
    return Counter(launch[4] for launch in step._recording.tape.launches)


@pytest.mark.parametrize(("name", "input_gradients"), [("resnet8", 1), ("preresnet8", 2)])
def test_recorded_steps_launch_no_backward_kernels_for_frozen_parts(name, input_gradients):
    """A ResNet-8 has 7 convolutions, of which 2 in its last stage.

    The lowest of those trained needs no input gradient, but below it in a pre-activation network is a batch norm's scale.
    """
    with mr.winograd(False):
        everything, last = launches([], name), launches(FROZEN, name)
    for kernel, calls in everything.items():
        if "weight" in kernel:
            assert (calls % 7, last[kernel]) == (0, calls // 7 * 2), kernel
    assert (everything["_convolve"], last["_convolve"]) == (7 + 6, 7 + input_gradients)
    assert sum(last.values()) < 0.65 * sum(everything.values())


@pytest.mark.parametrize("name", ["resnet8", "preresnet8", "densenet"])
def test_recorded_steps_have_the_bits_of_plain_ones(name):
    images, labels = batch()
    found = []
    for recorded in (True, False):
        model = network(name)
        optimizer = mr.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        step = mr.RecordedStep(model)
        with mr.recording(recorded):
            losses = []
            for _ in range(6):
                losses.append(step(images, labels)[0].item())
                optimizer.step()
        assert (step.state == "checked") == recorded
        found.append((losses, model.state_dict()))
    assert found[0][0] == found[1][0]
    for path, array in found[0][1].items():
        np.testing.assert_array_equal(array, found[1][1][path], err_msg=path)
    for path, array in network(name).state_dict().items():
        assert np.array_equal(array, found[0][1][path]) == under(path, BELOW), path


def test_a_part_that_is_frozen_between_steps_is_noticed_by_a_recorded_step():
    images, labels = batch()
    model = network(names=[])
    step = mr.RecordedStep(model)
    for _ in range(4):
        step(images, labels)
    freeze(model, FROZEN)
    before = model.bn1.running_mean.copy()
    step(images, labels)
    assert model.conv1.weight.grad is None
    np.testing.assert_array_equal(model.bn1.running_mean, before)


def test_frozen_dropout_passes_everything():
    stem = mr.nn.Sequential(mr.nn.Linear(4, 4), Dropout(0.5))
    model = mr.nn.Sequential({"stem": stem, "layer1": mr.nn.Linear(4, 4)})
    x = Tensor(np.ones((2, 4), np.float32))
    freeze(model, ["stem"])
    model.train()
    np.testing.assert_array_equal(stem(x).data, stem[0](x).data)
    assert model.training


@pytest.mark.parametrize("name", ["resnet8", "preresnet8"])
def test_no_frozen_block_is_left_out(name):
    """Stochastic depth and auxiliary classifiers are of the parts that are trained."""
    images, labels = batch()
    options = {"stochastic_depth": 0.9, "aux_weight": 0.3}
    model, plain = (network(name, ["stem", "layer1", "layer2", "layer3"], **own) for own in (options, {}))
    plain.load_state_dict({path: a for path, a in model.state_dict().items() if not path.startswith("aux.")})
    for _ in range(5):
        logits = [mr.RecordedStep(m)(images, labels)[1] for m in (model, plain)]
        np.testing.assert_array_equal(*logits)
    assert [path for path, p in model.named_parameters() if p.requires_grad and path.startswith("aux.")]
