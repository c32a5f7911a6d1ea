"""``minires predict``: from files of weights and photographs to the classes that PyTorch gives."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch_peers
from PIL import Image

import minires as mr
from minires import interop, training
from minires.data import LAYOUTS, imagenet_classes, shapes
from minires.errors import AnomalyError, ConfigError, ImageError
from minires.training.source import network_of_weights

CIFAR = ["--model", "resnet8", "--weights", "resnet8.safetensors", "--normalize", "cifar10"]
ROOT = Path(__file__).parents[2]


def draw(path, height=60, width=80, seed=0):
    """Write a picture of smooth colours."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(seed + x / (7 + c) + y / (11 - c)) for c in range(3)]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).save(path)
    return path


def save_network(path, name="resnet8", **options):
    mr.manual_seed(0)
    interop.save_safetensors(mr.models.create(name, **options), path)


@pytest.fixture
def photos(tmp_path):
    """A folder of four images, and beside it a network with random weights."""
    for seed, name in enumerate(("photos/a.jpg", "photos/b.png", "photos/c.webp", "photos/sub/d.bmp")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw(tmp_path / name, 60 + seed, 80 - 9 * seed, seed)
    save_network(tmp_path / "resnet8.safetensors")
    return tmp_path / "photos"


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_torchvisions_predictions(minires, tmp_path):
    """A .pth that torch wrote, an image of each orientation, and what torchvision's own code says of them."""
    torch, torchvision = torch_peers.torch(), torch_peers.torchvision()
    torch.manual_seed(1)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    for name, size in (("wide.jpg", (300, 420)), ("tall.png", (500, 333))):
        draw(tmp_path / "photos" / name, *size)
    code, out, err = minires(
        "predict", "photos", "--model", "resnet18", "--weights", "resnet18.pth", "--json", "--tta", "flip"
    )
    assert (code, err) == (0, "")
    assert [Path(line["image"]).name for line in lines(out)] == ["tall.png", "wide.jpg"]
    for line in lines(out):
        x = steps(Image.open(tmp_path / line["image"]).convert("RGB"))[None]
        with torch.no_grad():
            expected = ((network(x) + network(x.flip(3))) / 2).softmax(1)[0]
        best = expected.topk(5)
        assert [p["index"] for p in line["predictions"]] == best.indices.tolist()
        assert [p["class"] for p in line["predictions"]] == [imagenet_classes()[i] for i in best.indices]
        np.testing.assert_allclose([p["probability"] for p in line["predictions"]], best.values.numpy(), rtol=1e-4)


def test_a_table(minires, photos):
    code, out, err = minires("predict", "photos/a.jpg", "photos/sub", *CIFAR, "--top", 3)
    assert (code, err) == (0, "")
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0] for block in blocks] == ["photos/a.jpg", "photos/sub/d.bmp"]
    assert [len(block) for block in blocks] == [4, 4]
    assert all("%" in line for block in blocks for line in block[1:])


def test_of_a_run_with_its_classes(minires, small_run, tmp_path):
    """The test images of its data set as files, whose share that is right the run has measured too."""
    assert minires(*small_run, "--out", "run")[0] == 0
    test = shapes(0, train=40, test=24)[1]  # those that the fixture ``cifar`` has written
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(test.images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i:02}.png")
    code, out, err = minires("predict", "photos", "--run", "run", "--json", "--top", "1")
    assert (code, err) == (0, "")
    found = [line["predictions"][0] for line in lines(out)]
    assert all(p["class"] == LAYOUTS["cifar10"].classes[p["index"]] for p in found)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.mean([p["index"] for p in found] == test.labels) == pytest.approx(summary["final_test_acc"])


def test_alone_or_among_others_the_same_bits(minires, photos):
    _, together, _ = minires("predict", "photos", *CIFAR, "--json")
    alone = [minires("predict", line["image"], *CIFAR, "--json")[1] for line in lines(together)]
    assert together == "".join(alone)
    assert minires("predict", "photos", *CIFAR, "--json", "--threads", "2")[1] == together
    _, twice, _ = minires("predict", "photos/a.jpg", "photos/a.jpg", *CIFAR, "--json")
    assert twice == 2 * alone[0]


def test_csv(minires, photos):
    (photos / 'with "quotes", and\ncommas.png').write_bytes((photos / "b.png").read_bytes())
    code, out, err = minires("predict", "photos", *CIFAR, "--csv", "--top", 2)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["image", "rank", "class", "index", "probability"]
    assert [row["rank"] for row in rows] == ["1", "2"] * 5
    assert {row["image"] for row in rows} >= {"photos/a.jpg", 'photos/with "quotes", and\\ncommas.png'}
    assert all(0 < float(row["probability"]) < 1 for row in rows)


def test_the_names_of_classes(minires, photos, tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"class\x1b[2J {c}\n" for c in "abcdefghij"))
    code, out, err = minires("predict", "photos/a.jpg", *CIFAR, "--classes", "names.txt")
    assert (code, err) == (0, "")
    assert r"class\x1b[2J" in out
    _, out, _ = minires("predict", "photos/a.jpg", *CIFAR, "--json")
    assert all(p["class"] == str(p["index"]) for p in lines(out)[0]["predictions"])
    assert len(lines(minires("predict", "photos/a.jpg", *CIFAR, "--json", "--top", 99)[1])[0]["predictions"]) == 10


def test_other_sizes(minires, photos):
    plain = minires("predict", "photos/a.jpg", *CIFAR, "--json")[1]
    assert minires("predict", "photos/a.jpg", *CIFAR, "--json", "--size", 32, "--resize", 32)[1] == plain
    others = [["--size", 40], ["--size", 32, "--resize", 36], ["--tta", "views6"], ["--normalize", "imagenet"]]
    found = {minires("predict", "photos/a.jpg", *CIFAR, "--json", *options)[1] for options in others}
    assert len(found | {plain}) == 5


def test_a_network_of_grey_images(minires, photos):
    save_network("grey.safetensors", in_channels=1)
    command = ["predict", "photos/a.jpg", "--model", "resnet8", "--weights", "grey.safetensors", "--json"]
    code, out, err = minires(*command, "--mean", "0.5", "--std", "0.25")
    assert (code, err) == (0, "")
    grey = np.asarray(
        Image.open(photos / "a.jpg").resize((42, 32), Image.Resampling.BILINEAR).crop((5, 0, 37, 32)).convert("L")
    )
    mr.manual_seed(0)
    model = mr.models.create("resnet8", in_channels=1).eval()
    x = ((grey / 255 - 0.5) / 0.25).astype(np.float32)[None, None]
    with mr.no_grad():
        logits = model(mr.tensor(x)).numpy()[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    found = lines(out)[0]["predictions"]
    np.testing.assert_allclose([p["probability"] for p in found], np.sort(expected)[::-1][:5], rtol=1e-4)


def test_channels_that_do_not_fit(minires, photos, page):
    save_network("grey.safetensors", in_channels=1)
    code, out, err = minires(
        "predict", "photos", "--model", "resnet8", "--weights", "grey.safetensors", "--normalize", "cifar10"
    )
    assert (code, out) == (2, "")
    page(err)


def test_more_channels_than_photographs_have(minires, photos, page):
    save_network("four.safetensors", in_channels=4)
    code, out, err = minires(
        "predict", "photos", "--model", "resnet8", "--weights", "four.safetensors", "--normalize", "cifar10"
    )
    assert (code, out) == (2, "")
    page(err)


def test_a_normalisation_that_is_not_known(minires, photos, page):
    code, out, err = minires("predict", "photos", *CIFAR[:-2], "--csv")
    assert (code, out) == (2, "")
    page(err)


def test_a_new_head_knows_nothing(minires, photos, page):
    code, out, err = minires("predict", "photos", *CIFAR, "--num-classes", 7)
    assert (code, out) == (2, "")
    page(err)
    assert minires("predict", "photos", *CIFAR, "--num-classes", 10)[0] == 0


def test_a_wrong_number_of_names(minires, photos, page, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    code, out, err = minires("predict", "photos", *CIFAR, "--classes", "names.txt")
    assert (code, out) == (2, "")
    page(err)


def test_what_cannot_be_read_is_skipped(minires, photos, page, tmp_path):
    (photos / "damaged.jpg").write_bytes((photos / "a.jpg").read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    code, out, err = minires("predict", "photos", "empty", "nowhere.png", *CIFAR, "--json")
    assert code == 1
    assert len(lines(out)) == 4
    skipped = err.splitlines()
    assert len(skipped) == 3
    assert all(line.startswith("skipped: ") for line in skipped)
    assert skipped[0].startswith("skipped: empty holds no image: there is no file of .jpg, ")
    assert skipped[2] == "skipped: nowhere.png cannot be read: No such file or directory"
    page(skipped[1].removeprefix("skipped: "))


def test_all_folders_without_an_image_are_named(minires, photos, tmp_path):
    for name in ("empty", "bare"):
        (tmp_path / name).mkdir()
    code, out, err = minires("predict", "empty", "bare", *CIFAR)
    assert (code, out) == (2, "")
    assert [f"{name} holds no image" in err for name in ("empty", "bare")] == [True, True]


def test_no_image_at_all(minires, photos, page, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = minires("predict", "empty", *CIFAR)
    assert (code, out) == (2, "")
    page(err)


def test_outputs_that_are_not_finite(minires, photos, page):
    mr.manual_seed(0)
    model = mr.models.create("resnet8")
    for p in model.parameters():
        if p.ndim == 4:
            p.data[...] = 1e30
    interop.save_safetensors(model, "huge.safetensors")
    code, out, err = minires(
        "predict", "photos", "--model", "resnet8", "--weights", "huge.safetensors", "--normalize", "cifar10"
    )
    assert (code, out) == (2, "")
    page(err)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_terminals_would_obey(minires, photos):
    evil = photos / os.fsdecode(b"\x1b[2J\xe9\n.png")
    evil.write_bytes((photos / "b.png").read_bytes())
    for form in ([], ["--json"], ["--csv"]):
        code, out, err = minires("predict", evil, photos / "\x1b]0;x.png", *CIFAR, *form)
        assert code == 1
        assert "\x1b" not in out + err
    assert json.loads(minires("predict", evil, *CIFAR, "--json")[1])["image"] == str(evil)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a pseudo-terminal")
def test_json_goes_to_the_file_and_progress_to_the_terminal(photos, tmp_path):
    import pty

    terminal, inside = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    (photos / "bad.png").write_bytes(b"bad")
    with open(tmp_path / "out.jsonl", "wb") as out:
        command = [sys.executable, "-m", "minires", "predict", photos, *CIFAR, "--json"]
        process = subprocess.Popen(command, stdout=out, stderr=inside, stdin=inside, env=environment, cwd=tmp_path)
        os.close(inside)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            shown += part
            if not part:
                break
    assert process.wait(60) == 1
    os.close(terminal)
    assert len(lines((tmp_path / "out.jsonl").read_text())) == 4
    assert b"looking" in shown
    assert b"predictions" not in shown
    assert b"bad.png (3 bytes) is no image" in shown.replace(b"\r\n", b"")


def test_in_python(photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    normalization = mr.data.Normalization.named("cifar10")
    network = network_of_weights("resnet8", "resnet8.safetensors", normalization=normalization)
    (first, second) = training.classify(network, [photos / "a.jpg", str(photos / "b.png")])
    assert first.path == photos / "a.jpg"
    assert first.probabilities.shape == (10,)
    assert first.probabilities.sum() == pytest.approx(1)
    assert [c for c, _ in second.top(3)] == np.argsort(-second.probabilities)[:3].tolist()
    with pytest.raises(ImageError, match="nowhere"):
        list(training.classify(network, ["nowhere"]))
    skipped = []
    assert list(training.classify(network, ["nowhere"], on_error=skipped.append)) == []
    assert len(skipped) == 1
    for options in ({"size": 0}, {"resize": 10**6}, {"tta": "all"}):
        with pytest.raises(ConfigError):
            training.classify(network, [], **options)
    network.model.fc.weight.data[...] = np.nan
    with pytest.raises(AnomalyError, match="are not finite"):
        list(training.classify(network, [photos / "a.jpg"]))
