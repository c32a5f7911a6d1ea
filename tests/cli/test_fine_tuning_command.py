"""Fine-tuning as a user does it: from a run, from a PyTorch file; its runs in every other command."""

import re
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires.cli.train import recipe_of
from minires.training import Checkpoint, Recipe, load_run
from minires.training.weights import inherited

FROZEN = ["--freeze", "stem, layer1,layer2"]


@pytest.fixture
def first(minires, small_run):
    """A run to begin from, of a narrow network for 12 classes on images normalised otherwise than usual."""
    options = "--model-option width=4 --model-option num_classes=12 --normalize imagenet --epochs 1 --out first --quiet"
    assert minires(*small_run, *options.split())[0] == 0
    return "first"


@pytest.fixture
def tuned(cifar):
    """The words of a run that begins from weights, without a model."""
    return ["train", "--dataset", "cifar10", "--data-dir", cifar, "--batch-size", 16, "--threads", 1, "--epochs", 2]


def test_from_a_run(minires, first, tuned, tmp_path, page):
    code, out, err = minires(*tuned, "--weights", first, *FROZEN)
    assert (code, out) == (2, "")
    page(" ".join(err.removeprefix("error: ").split()))
    assert not (tmp_path / "runs").exists()

    words = [*tuned, "--weights", first, *FROZEN, "--num-classes", 10, "--lr-factor", "head=5"]
    code, out, err = minires(*words, "--dry-run")
    assert (code, err) == (0, "")
    assert re.search(r"model +resnet8, 5,006 parameters, of which 3,690 are trained, ", out)
    code, out, err = minires(*words, "--out", "run")
    assert (code, err) == (0, "")
    assert re.search(r"weights +.*first, but for a new fc.weight and fc.bias\n +frozen +stem, layer1, layer2\n", out)
    assert re.search(r"lr [\d.]+ \(head [\d.]+\), 1 thread\n", out)
    recipe = Recipe.read("run/config.toml")
    source = Checkpoint.load("first/last.safetensors")
    assert (recipe.model, recipe.model_options, recipe.num_classes) == ("resnet8", {"width": 4}, 10)
    assert (recipe.freeze, recipe.lr_factors) == (("stem", "layer1", "layer2"), {"head": 5})
    assert recipe.mean == tuple(source.info["mean"])
    assert recipe.weights == str(tmp_path / "first")
    _, model, _ = load_run("run")
    assert model.fc.out_features == 10
    np.testing.assert_array_equal(model.layer2[0].conv1.weight.data, source.model["layer2.0.conv1.weight"])

    assert recipe.lr == Recipe.read("first/config.toml").lr / 10
    assert recipe_of(None, {"weights": first, "lr": 0.3, "num_classes": 10}).lr == 0.3
    assert recipe_of("first/config.toml", {"weights": first}).lr == Recipe.read("first/config.toml").lr

    assert minires("eval", "run")[0] == 0
    assert minires("explain", "run")[0] == 0
    code, out, _ = minires("compare", "first", "run")
    assert code == 0
    assert re.search(r"weights +num_classes +freeze +lr +lr_factors", out)
    assert re.search(r"^run .* stem, layer1, layer2 ", out, re.M)
    assert minires("train", "--resume", "run", "--more-epochs", 1, "--weights", first)[0] == 0
    assert Checkpoint.load("run/last.safetensors").info["epoch"] == 3
    assert (
        minires("train", "--recipe", "run/config.toml", "--epochs", 1, "--data-dir", tuned[4], "--out", "again")[0] == 0
    )
    assert minires("train", "--resume", first, "--more-epochs", 1)[0] == 0  # which changes what is begun from
    code, _, err = minires("train", "--recipe", "run/config.toml")
    assert (code, "has changed since the recipe was written" in err) == (2, True)


def test_weights_of_another_network(minires, first, tuned, tmp_path, page):
    code, out, err = minires(*tuned, "--weights", first, "--model", "resnet14")
    assert (code, out) == (2, "")
    page(" ".join(err.removeprefix("error: ").split()))
    assert not (tmp_path / "runs").exists()


def test_sweep_over_what_is_frozen(minires, first, tuned):
    words = ["sweep", *tuned[1:5], "--threads", 1, "--seeds", 0, "--set", "epochs=1", "--set", "batch_size=16"]
    words += [
        "--set",
        "num_classes=10",
        "--set",
        f"weights={first}",
        "--set",
        'freeze=["stem"],["stem","layer1"]',
        "--out",
        "out",
    ]
    code, out, err = minires(*words)
    assert (code, err) == (0, "")
    assert sorted(Recipe.read(path).freeze for path in Path("out").rglob("config.toml")) == [
        ("stem",),
        ("stem", "layer1"),
    ]
    code, out, _ = minires(*words)
    assert (code, out.count("is complete")) == (0, 2)


@pytest.mark.parametrize("option", ["A", "B"])
def test_from_a_file_of_pytorch(minires, tuned, torch, option, tmp_path):
    """The shortcuts are those of the file; a run that has a checkpoint goes on without it."""
    model = mr.models.resnet8(option=option)
    state = {f"module.{name}": torch.tensor(np.ascontiguousarray(a)) for name, a in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.th")
    code, out, err = minires(*tuned, "--model", "resnet8", "--weights", "net.th", "--freeze", "stem", "--out", "run")
    assert (code, err) == (0, "")
    assert re.search(r"weights +.*net.th\n", out)
    assert Recipe.read("run/config.toml").model_options == ({"option": "B"} if option == "B" else {})
    _, trained, _ = load_run("run")
    np.testing.assert_array_equal(trained.conv1.weight.data, model.conv1.weight.data)
    (tmp_path / "net.th").unlink()
    assert minires("train", "--resume", "run", "--more-epochs", 1)[0] == 0


def test_networks_of_imagenet_have_its_normalisation(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    mr.interop.save_safetensors(mr.models.resnet8(), path)
    recipe = Recipe(weights=str(path))
    assert inherited(recipe, {"model"}) == {}
    monkeypatch.setattr(mr.models.CifarResNet, "image_size", 224)
    assert inherited(recipe, {"model"}) == {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert inherited(recipe, {"model", "mean", "std"}) == {}
    mr.interop.save_safetensors(mr.models.resnet18(small_images=True, num_classes=7), tmp_path / "small.safetensors")
    recipe = Recipe(model="resnet18", weights=str(tmp_path / "small.safetensors"), num_classes=10)
    assert inherited(recipe, {"model"}) == {"model_options": {"small_images": True}}
    assert inherited(Recipe(model_options={"num_classes": "x"}, weights=str(path)), {}) == {}  # build_trainer says why
