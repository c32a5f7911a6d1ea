"""`minires eval` with weights that PyTorch trained, compared with PyTorch's own evaluation of the same network."""

import json

import numpy as np
import pytest
import torch_peers

from minires import interop, models
from minires.cli.evaluate import _table
from minires.training.source import network_of_run, network_of_weights
from minires.training.weights import checkpoint_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def akamaster_resnet20(torch):
    """ResNet-20 with option A, written as in the well-known code pytorch_resnet_cifar10: its names are module.… and linear."""
    nn, F = torch.nn, torch.nn.functional

    class Shortcut(nn.Module):
        def __init__(self, planes):
            super().__init__()
            self.pad = planes // 4

        def forward(self, x):
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))

    class Block(nn.Module):
        def __init__(self, inside, planes, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.shortcut = nn.Sequential() if stride == 1 else Shortcut(planes)

        def forward(self, x):
            return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
            for i, (inside, planes, stride) in enumerate(widths, 1):
                layers = [Block(inside, planes, stride), *(Block(planes, planes, 1) for _ in range(2))]
                self.add_module(f"layer{i}", nn.Sequential(*layers))
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.linear(F.avg_pool2d(x, x.shape[3]).flatten(1))

    torch.manual_seed(0)
    network = ResNet()
    for module in network.modules():  # as after training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """(network, {format: file}) of a ResNet-20 as it is published."""
    torch = torch_peers.torch()
    network = akamaster_resnet20(torch)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": state, "best_prec1": 91.7, "epoch": 200}
    folder = tmp_path_factory.mktemp("weights")
    torch.save(content, folder / "zip.th")
    torch.save(content, folder / "legacy.th", _use_new_zipfile_serialization=False)
    return network, {kind: folder / f"{kind}.th" for kind in ("zip", "legacy")}


def images_and_labels(cifar):
    records = np.fromfile(cifar / "test_batch.bin", np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_the_accuracy_and_the_loss_are_pytorchs(minires, cifar, published, kind):
    torch = torch_peers.torch()
    network, files = published
    images, labels = images_and_labels(cifar)
    x = (torch.from_numpy(images / np.float32(255)) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    with torch.no_grad():
        logits = network(x)
    right = int((logits.argmax(1).numpy() == labels).sum())
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    options = ["--dataset", "cifar10", "--data-dir", cifar, "--normalize", "imagenet"]
    code, out, err = minires("eval", "--model", "resnet20", "--weights", files[kind], *options, "--json")
    assert code == 0, err
    measured = json.loads(out.splitlines()[-1])
    assert measured["test_acc"] == pytest.approx(right / len(labels), abs=1e-12)
    assert measured["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert measured["images"] == len(labels) == 24
    assert len(out.splitlines()) == 1  # the table is on standard error
    assert "test accuracy" in err
    assert "normalised by" not in err
    assert f"state_dict: {len(network.state_dict())} names matched" in " ".join(err.split())
    numbers = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--tta", "flip"]
    code, out, _ = minires("eval", "--model", "resnet20", "--weights", files[kind], *options[:4], *numbers, "--json")
    assert code == 0
    assert measured.items() <= json.loads(out).items()
    assert "test_flip_acc" in json.loads(out)


def test_the_last_line_of_a_run_is_its_accuracy(minires, small_run):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q")
    code, out, _ = minires("eval", "run", "--json")
    assert code == 0
    with open("run/summary.json") as file:
        assert json.loads(out)["test_acc"] == pytest.approx(json.load(file)["final_test_acc"], abs=1e-6)


def test_other_classes_than_the_data_sets(minires, cifar, page):
    interop.save_safetensors(models.resnet8(num_classes=7), "seven.safetensors")
    words = ["--dataset", "cifar10", "--data-dir", cifar, "--model", "resnet8", "--weights", "seven.safetensors"]
    code, out, err = minires("eval", *words)
    assert (code, out) == (2, "")
    page(err.removeprefix("error: ").strip())


def test_a_new_head_has_no_accuracy(minires, cifar, page):
    interop.save_safetensors(models.resnet8(num_classes=7), "seven.safetensors")
    words = ["--dataset", "cifar10", "--data-dir", cifar, "--model", "resnet8", "--weights", "seven.safetensors"]
    code, out, err = minires("eval", *words, "--num-classes", 10)
    assert (code, out) == (2, "")
    page(err.removeprefix("error: ").strip())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_safetensors_of_other_programs(minires, cifar, tmp_path, dtype):
    """NumPy has no bfloat16, and the library safetensors gives it no arrays of that."""
    torch = torch_peers.torch()
    from safetensors.torch import save_file

    model = models.resnet8()
    state = {name: torch.from_numpy(array.copy()) for name, array in model.state_dict().items()}
    state = {name: x.to(getattr(torch, dtype)) if x.is_floating_point() else x for name, x in state.items()}
    save_file(state, tmp_path / "weights.safetensors", {"format": "pt"})
    words = ["--dataset", "cifar10", "--data-dir", cifar, "--model", "resnet8", "--weights", "weights.safetensors"]
    code, out, err = minires("eval", *words, "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 24
    assert "normalised by the colours of cifar10's training images: --normalize" in " ".join(err.split())
    assert checkpoint_of(tmp_path / "weights.safetensors") is None


def test_classes_without_a_test_image_have_no_accuracy():
    counts = np.zeros((30, 30), np.int64)
    counts[3, 3], counts[5, 4] = 2, 2
    hardest = _table(counts, [f"c{c}" for c in range(30)])
    assert list(hardest.columns[0].cells) == ["c5", "c3"]
    whole = _table(counts[:6, :6], [f"c{c}" for c in range(6)])
    assert list(whole.columns[2].cells) == ["", "", "", "100.00 %", "", "0.00 %"]


def test_what_each_name_was_taken_for(minires, cifar, published):
    words = ["--dataset", "cifar10", "--data-dir", cifar, "--model", "resnet20", "--weights", published[1]["legacy"]]
    code, out, _ = minires("eval", *words, "--report")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("matched")]
    assert ["matched", "module.linear.weight", "fc.weight"] in rows
    assert ["matched", "module.layer2.0.bn1.running_var", "layer2.0.bn1.running_var"] in rows
    assert len(rows) == len(published[0].state_dict())


def test_a_checkpoint_given_as_weights_brings_its_normalisation_and_classes(minires, small_run):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q", "--mean", "0.1,0.2,0.3", "--std", "1,2,3")
    of_run, of_file = network_of_run("run"), network_of_weights("resnet8", "run/last.safetensors")
    assert of_file.normalization == of_run.normalization
    assert of_file.classes == of_run.classes
    assert of_file.classes is not None
