"""`minires lab cam`, `features` and `filters`: pictures of photographs and test images, what is said of them, bad input."""

import json
import re
import shutil

import numpy as np
import pytest
from drawn_folders import folder_of_colours

import minires as mr
from minires import lab
from minires.cli import lab_images, lab_inside
from minires.interop import save_safetensors

CIFAR = ("--dataset", "cifar10", "--data-dir", "DATA")  # the small one, of 24 test images
NETWORK = ("--model", "resnet8", "--weights", "w.safetensors", "--normalize", "cifar10")


@pytest.fixture
def folder(tmp_path):
    """Weights, and three photographs, in the folder that commands run in."""
    from PIL import Image

    mr.manual_seed(0)
    save_safetensors(mr.models.resnet8(), tmp_path / "w.safetensors")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in (("a.png", (40, 50)), ("b.jpg", (64, 33)), ("c $x$.png", (32, 32))):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_cam(minires, folder):
    code, out, err = minires("lab", "cam", "photos", *NETWORK, "--top", "2")
    assert (code, err) == (0, "")
    assert "resnet8, with the weights of w.safetensors: layer3, 64 channels of 8×8" in out
    assert len(re.findall(r"class \d +\d+\.\d+ %", out)) == 6
    assert all(name in out for name in ("a.png", "b.jpg", "c $x$.png"))
    assert (folder / "cam.png").read_bytes().startswith(b"\x89PNG")
    assert names(folder) == {"w.safetensors", "photos", "cam.png"}


def test_cam_says_what_python_says(minires, folder):
    arguments = ("photos/c $x$.png", *NETWORK, "--layer", "layer2", "--target", "3", "--target", "7", "--out", "a.svg")
    code, out, _ = minires("lab", "cam", *arguments, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["model"], found["layer"], found["channels"], found["map"]) == ("resnet8", "layer2", 32, [16, 16])
    assert (folder / "a.svg").read_bytes().startswith(b"<?xml")

    from PIL import Image

    model = mr.models.resnet8()
    mr.interop.load_weights(model, folder / "w.safetensors")
    pixels = np.asarray(Image.open(folder / "photos" / "c $x$.png")) / 255
    image = (pixels - (0.4914, 0.4822, 0.4465)) / (0.2470, 0.2435, 0.2616)
    for c, told in zip((3, 7), found["maps"]):
        expected = lab.grad_cam(model, image.transpose(2, 0, 1), c, "layer2")
        assert (told["number"], told["class"]) == (c, f"class {c}")
        assert told["probability"] == pytest.approx(float(expected.probability), rel=1e-4)
        assert told["area"] == pytest.approx((expected.heat >= 0.5).mean(), abs=0.01)
        column, row = (int(share * 32) for share in told["peak"])
        assert expected.heat[row, column] == pytest.approx(1, abs=1e-3)


def test_test_images_of_a_run(minires, small_run, tmp_path):
    code, _, err = minires(*small_run, "--model-option", "width=4", "--out", "run")
    assert code == 0, err
    code, out, err = minires("lab", "cam", "--run", "run", "--index", "2,0", "--target", "Cat")
    assert (code, err) == (0, "")
    assert re.search(r"image 2: \w+ +cat .*\n *image 0: \w+ +cat ", out)
    code, out, _ = minires("lab", "cam", "--run", "run", "--json")
    assert len({each["image"] for each in json.loads(out)["maps"]}) == lab_images.FIRST
    code, out, _ = minires("lab", "features", "--run", "run")
    assert re.search(r"resnet8, after epoch 2, for image 0: \w+", out)
    code, out, _ = minires("lab", "filters", "--run", "run", "--json")
    assert json.loads(out)["shape"] == [4, 3, 3, 3]
    code, _, err = minires("lab", "cam", "--run", "run", "--target", "caat")
    assert code == 2
    assert "there is no class 'caat' (did you mean cat" in err


def test_the_images_of_a_run_on_a_folder_are_named(minires, tmp_path, page):
    """None of them is read for the answer."""
    folder_of_colours(tmp_path / "photos", count=4)
    words = "--model resnet8 --model-option width=4 --image-size 32 --val 0.5 --epochs 1 --batch-size 2 --threads 1"
    assert minires("train", "--dataset", "folder", "--data-dir", "photos", *words.split(), "--out", "run")[0] == 0
    shutil.rmtree(tmp_path / "photos")
    code, out, err = minires("lab", "cam", "--run", "run")
    assert (code, out) == (2, "")
    page(" ".join(err.removeprefix("error: ").split()))


def test_features(minires, folder):
    code, out, err = minires("lab", "features", "photos/a.png", *NETWORK)
    assert (code, err) == (0, "")
    assert re.search(r"stem +16×32×32 .*\nlayer1 +16×32×32 .*\nlayer2 +32×16×16 .*\nlayer3 +64×8×8 ", out)
    assert (folder / "features.png").exists()
    layers = ("--layer", "layer1.0", "--layer", "conv1", "--channels", "3", "--json", "--out", "f.pdf")
    code, out, _ = minires("lab", "features", "photos/a.png", *NETWORK, *layers)
    assert code == 0
    found = json.loads(out)["layers"]
    assert [(each["layer"], len(each["strongest"])) for each in found] == [("conv1", 3), ("layer1.0", 3)]
    assert (folder / "f.pdf").read_bytes().startswith(b"%PDF")


def test_features_that_are_not_finite(minires, folder, page):
    model = mr.models.resnet8()
    for layer in (model.layer2, model.layer3):
        layer[0].bn2.weight.data = np.full_like(layer[0].bn2.weight.data, 1e38)
    save_safetensors(model, folder / "w.safetensors")
    code, out, err = minires("lab", "features", "photos/a.png", *NETWORK, "--json")
    assert (code, out) == (2, "")
    page(err.removeprefix("error: ").rstrip("\n"))
    layers = "--layer", "layer2", "--json"  # whose values are finite, and their sum in float32 is not
    code, out, err = minires("lab", "features", "photos/a.png", *NETWORK, *layers)
    assert (code, err) == (0, "")
    assert json.loads(out)["layers"][0]["mean"] > 1e36


def test_filters(minires, folder):
    code, out, err = minires("lab", "filters", *NETWORK[:4], "--out", "filters.png")
    assert (code, err) == (0, "")
    assert "conv1: 16 filters of 3×3×3; norms from" in out
    code, out, _ = minires("lab", "filters", *NETWORK[:4], "--json")
    w = mr.interop.read_weights(folder / "w.safetensors")["conv1.weight"]
    np.testing.assert_allclose(json.loads(out)["norms"], np.sqrt((w**2).sum(axis=(1, 2, 3))), rtol=1e-5)


def test_a_network_of_one_channel(minires, folder, cifar):
    save_safetensors(mr.models.resnet8(in_channels=1), folder / "w.safetensors")
    network = (*NETWORK[:4], "--mean", "0.5", "--std", "0.25")
    code, out, err = minires("lab", "cam", "photos/c $x$.png", *network, "--json")
    assert code == 0, err
    told = json.loads(out)["maps"][0]["probability"]
    _, out, _ = minires("predict", "photos/c $x$.png", *network, "--json")
    assert told == pytest.approx(json.loads(out)["predictions"][0]["probability"], rel=1e-3)
    code, out, _ = minires("lab", "filters", *network[:4])
    assert "conv1: 16 filters of 1×3×3" in out
    code, _, err = minires("lab", "cam", *network[:4], *CIFAR[:-1], cifar)
    assert code == 2
    assert "takes images of 1 channels, and those of cifar10 have 3" in err


@pytest.mark.parametrize("command", ["cam", "features"])
def test_a_photograph_is_never_written_over(minires, folder, command, page):
    photograph = (folder / "photos" / "a.png").read_bytes()
    (folder / "link.png").symlink_to("photos/a.png")
    code, out, err = minires("lab", command, "photos/a.png", *NETWORK, "--out", "link.png")
    assert (code, out) == (2, "")
    assert (folder / "photos" / "a.png").read_bytes() == photograph
    if command == "cam":
        page(err.removeprefix("error: ").rstrip("\n"))
    else:
        assert "link.png is one of the photographs" in err


def test_photographs_of_the_same_name(minires, folder):
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes((folder / "photos" / "a.png").read_bytes())
    _, out, _ = minires("lab", "cam", "x", "y", "photos/b.jpg", *NETWORK, "--json")
    assert list(dict.fromkeys(each["image"] for each in json.loads(out)["maps"])) == ["x/a.png", "y/a.png", "b.jpg"]


def test_names_of_classes(minires, folder, cifar):
    (folder / "names.txt").write_text("\n".join(["Tench", "crane", "crane", *"defghij"]))
    arguments = ("lab", "cam", "photos/a.png", *NETWORK, "--json", "--target")
    for target, more, expected in [
        ("tench", ("--classes", "names.txt"), "Tench"),
        ("2", ("--classes", "names.txt"), "crane"),
    ]:
        code, out, err = minires(*arguments, target, *more)
        assert code == 0, err
        assert json.loads(out)["maps"][0]["class"] == expected
    for target, more, message in [
        ("crane", ("--classes", "names.txt"), "several classes are called 'crane': give the number, 1 or 2"),
        ("Trench", ("--classes", "names.txt"), "no class 'Trench' .did you mean Tench.*are Tench, crane, crane, d"),
        ("9" * 5000, (), "the 10 classes of w.safetensors have no names here"),
        ("-1", ("--classes", "names.txt"), "there is no class '-1'"),
        ("0", ("--classes", "none.txt"), "there is no file none.txt"),
    ]:
        code, out, err = minires(*arguments, target, *more)
        assert (code, out) == (2, "")
        assert re.search(message, err)
    test = (*CIFAR[:-1], cifar, "--index", "0")
    _, out, _ = minires("lab", "cam", *NETWORK, *test, "--target", "cat", "--json")
    assert json.loads(out)["maps"][0]["class"] == "cat"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("cam", "photos/a.png", *NETWORK, "--layer", "layre3"), id="layer"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--layer", "fc"), id="no-map"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--layer", "avgpool"), id="pixel"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--target", "10"), id="class"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--target", "cat"), id="no-names"),
        pytest.param(("cam", "photos/a.png", *NETWORK[:4]), id="normalisation"),
        pytest.param(("cam", *NETWORK), id="no-images"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--index", "0"), id="both"),
        pytest.param(("cam", *NETWORK, *CIFAR, "--index", "24"), id="index"),
        pytest.param(("cam", *NETWORK, *CIFAR, "--index", "a"), id="no-number"),
        pytest.param(("cam", *NETWORK, *CIFAR, "--index", ",".join("0" * 13)), id="many"),
        pytest.param(("features", "photos", *NETWORK), id="one"),
        pytest.param(("cam", "photos/a.png", *NETWORK, "--out", "none/a.png"), id="out"),
    ],
)
def test_bad_input(minires, folder, cifar, arguments, page):
    before = names(folder)
    code, out, err = minires("lab", *(str(cifar) if word == "DATA" else word for word in arguments))
    assert (code, out) == (2, "")
    page(err)
    assert names(folder) == before


def test_json_holds_no_control_characters(capsys):
    lab_inside._print_json({"image": "a\u202e\x9b.png"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"image": "a\u202e\x9b.png"}
