"""`minires lab NAME --run RUN`: tiny trained runs, what the results say of them, and runs that cannot be looked at."""

import re
from pathlib import Path

import numpy as np
import pytest

from minires import lab, training
from minires.errors import ConfigError
from minires.lab import catalogue, fit, runs
from minires.lab.setting import Setting
from minires.training import Recipe, Recorder, RunFolder, build_trainer

SMALL = ("--quick", "--batch-size", "8", "--json")
TWENTY = {
    "resnet20": {},
    "preresnet20": {},
    "plain20": {},
    "resnet20-b": {"model": "resnet20", "option": "B"},
    "resnet20-bare": {"model": "resnet20", "norm": "none"},
    "resnet14": {},
}


@pytest.fixture(scope="module")
def trained(cifar, tmp_path_factory):
    """The folder of runs of one epoch, of width 4, on 40 images of a data set like CIFAR-10."""
    folder = tmp_path_factory.mktemp("trained")
    for name, options in TWENTY.items():
        options = {"width": 4, **options}
        recipe = Recipe.for_dataset(
            "cifar10", model=options.pop("model", name), model_options=options, data_dir=str(cifar), epochs=1, batch_size=20,
            threads=1, lr=0.01,
        )  # fmt: skip
        save(recipe, folder / name)
    return folder


def save(recipe, path):
    trainer = build_trainer(recipe)
    with RunFolder.create(recipe, path) as run:
        trainer.callbacks = (Recorder(run, recipe),)
        trainer.fit()


def answer(minires, *arguments):
    """The result that a command prints."""
    code, out, err = minires("lab", *arguments)
    assert code == 0, err
    return catalogue.read(out)


RESIDUAL = ("paths", "split", "refine", "identity", "truncate", "cut")


@pytest.mark.parametrize(
    ("name", "run"),
    [
        *((name, run) for name in RESIDUAL[:4] for run in ("resnet20", "preresnet20")),
        *(
            pytest.param(name, run, marks=pytest.mark.slow)
            for name in RESIDUAL[:4]
            for run in ("resnet20-b", "resnet20-bare")
        ),
        ("truncate", "resnet20-b"),
        ("cut", "preresnet20"),
    ],
)
def test_residual_networks(minires, trained, name, run):
    steps = ("--steps", "2") if name in ("truncate", "cut") else ()
    result = answer(minires, name, "--run", str(trained / run), *SMALL, *steps)
    assert result.settings["run"] == str(trained / run)
    assert result.settings["model"] == run.split("-")[0]
    assert result.settings["dataset"] == "cifar10"
    assert "width" not in result.settings
    if name in ("paths", "split"):
        assert np.max(result.error) < 1e-12


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_plain_run_has_no_residual_addition(minires, trained, name):
    code, out, err = minires("lab", name, "--run", str(trained / "plain20"), *SMALL)
    assert (code, out) == (2, "")
    assert "CifarResNet has no residual addition that is known as one" in err


def test_the_weights_are_those_of_the_run(minires, trained):
    """The share of the gradient by hand, from the checkpoint, is what the command says."""
    result = answer(minires, "split", "--run", str(trained / "resnet20"), *SMALL)
    _, model, _ = training.load_run(trained / "resnet20")
    images, labels = Setting(run=str(trained / "resnet20"), batch_size=8).batch()
    np.testing.assert_array_equal(result.total, lab.split(model.double(), (images, labels), training=True).total)


@pytest.mark.parametrize("name", ["flow", pytest.param("bugs", marks=pytest.mark.slow), "spectrum"])
def test_other_experiments(minires, trained, name):
    own = {"flow": ("--steps", "1"), "bugs": ("--inject", "skip-dropped"), "spectrum": ("--at", "fc")}[name]
    result = answer(minires, name, "--run", str(trained / "resnet20"), *SMALL, *own)
    assert result.settings["model"] == "resnet20"
    assert own == tuple(
        str(x) for key, value in result.settings.items() for x in (f"--{key}", value) if f"--{key}" in own
    )
    if name == "flow":
        assert result.networks == ["the run's"]
        assert result.verdict.word == "unclear"


def test_flow_of_a_plain_run(minires, trained):
    assert answer(minires, "flow", "--run", str(trained / "plain20"), *SMALL, "--steps", "1").additions == [0]


def test_a_trained_network_is_not_at_initialisation(minires, trained):
    verdict = answer(minires, "identity", "--run", str(trained / "preresnet20"), *SMALL).verdict
    assert verdict.word == "unclear"
    assert "this one is trained" in verdict.because


def test_a_run_uses_its_test_images(trained):
    """With --quick too, since it has not learnt the first training images by heart."""
    setting = Setting(run=str(trained / "resnet20"), quick=True)
    train, test = fit.images_for(setting)
    assert (len(train), len(test)) == (40, 24)
    assert not np.array_equal(train.images[:24], test.images)


# --- lesion and responses


def test_lesion(minires, trained):
    result = answer(minires, "lesion", "--run", str(trained / "resnet20"), "--plain", str(trained / "plain20"), *SMALL)
    assert result.networks == ["resnet20", "plain20"]
    assert result.whole.shape == (2, 2)
    test = Setting(run=str(trained / "resnet20")).datasets()[1]
    for i, name in enumerate(result.networks):
        assert result.whole[i, 0] == 1 - fit.evaluated(training.load_run(trained / name)[1], test)[1]
    assert {"steps", "batch_size"}.isdisjoint(result.settings)  # nothing was trained
    alone = answer(minires, "lesion", "--run", str(trained / "resnet20"), *SMALL)
    assert alone.verdict == ("unclear", "no plain network as control (--plain)")
    np.testing.assert_array_equal(alone.single[0], result.single[0])


def test_landscape(minires, trained):
    given = ("--run", str(trained / "resnet20"), "--plain", str(trained / "plain20"), "--points", "5", "--images", "8")
    result = answer(minires, "landscape", *given, *SMALL)
    assert result.networks == ["resnet20", "plain20"]
    assert result.loss.shape == (2, 5, 5)


def test_responses(minires, trained):
    runs = (
        "--run",
        str(trained / "resnet14"),
        "--plain",
        str(trained / "plain20"),
        "--deeper",
        str(trained / "resnet20"),
    )
    result = answer(minires, "responses", *runs, *SMALL)
    assert list(zip(result.smaller, result.larger)) == [("resnet14", "plain20"), ("resnet20", "resnet14")]
    assert {name: len(d) for name, d in result.deviations.items()} == {"resnet14": 13, "plain20": 19, "resnet20": 19}
    assert {"steps", "batch_size", "seed"}.isdisjoint(result.settings)
    alone = answer(minires, "responses", "--run", str(trained / "resnet14"), *SMALL)
    assert (alone.verdict.word, list(alone.deviations)) == ("unclear", ["resnet14"])
    np.testing.assert_array_equal(alone.deviations["resnet14"], result.deviations["resnet14"])


def test_what_is_trained_says_for_how_long(minires):
    sizes = ("--model", "resnet14", "--width", "4", "--image-size", "8", "--steps", "2")
    assert answer(minires, "responses", *sizes, *SMALL).settings["steps"] == 2
    code, _, err = minires("lab", "responses", *sizes[:-1], "0")
    assert code == 2
    assert "steps must be a whole number from 1" in err


def test_names_of_runs():
    assert runs.run_names("a/resnet20", "b/plain20", None) == ["resnet20", "plain20", ""]
    assert runs.run_names("a/net/", "b/net", "c/other") == ["a/net/", "b/net", "other"]
    assert runs.run_names(str(Path.cwd()), ".") == [str(Path.cwd()), "."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            "lesion --run resnet20 --plain resnet20-b",
            r"resnet20-b \(--plain\) is a residual network: the control is a run of",
            id="control-with-shortcuts",
        ),
        pytest.param(
            "landscape --run resnet20 --plain resnet20-b",
            r"resnet20-b \(--plain\) is a residual network: the control is a run of",
            id="landscape-control-with-shortcuts",
        ),
        pytest.param(
            "lesion --run plain20 --plain plain20",
            "the network has no shortcuts: lesion looks at a residual network",
            id="no-shortcuts",
        ),
        pytest.param(
            "lesion --run resnet14 --plain plain20",
            "the control has 9 blocks and the network 6: compare networks of the same",
            id="other-depth",
        ),
        ("lesion --run resnet20 --plain nowhere", "there is no run .*nowhere: give the folder of a run"),
        ("lesion --run resnet20 --plain .", "is not a run folder: it holds no last.safetensors"),
        (
            "lesion --plain plain20",
            "plain20 is a run of cifar10 and --dataset is shapes: compare networks of one data set",
        ),
        ("responses --run resnet20 --plain resnet14", r"resnet14 \(--plain\) is a residual network"),
        pytest.param(
            "responses --run resnet20 --deeper resnet14",
            r"\(--deeper\) has 13 convolutions, and .* compared with 19: give",
            id="not-deeper",
        ),
        pytest.param(
            "responses --run preresnet20",
            "preresnet20 has no batch norm right after each convolution",
            id="pre-activation",
        ),
        ("responses --run resnet20-bare", "resnet20-bare has no batch norm right after each convolution"),
        (
            "paths --run resnet20 --model resnet8",
            "--run takes the model and the data set of the run: leave out --model$",
        ),
        ("lesion --run resnet20 --width 4 --dataset shapes", "leave out --width and --dataset$"),
        ("shatter --run resnet20", "There is no option --run"),
    ],
)
def test_runs_that_cannot_be(minires, trained, page, arguments, message):
    words = [str(trained / w) if w in TWENTY or w in (".", "nowhere") else w for w in arguments.split()]
    words = [w if words[i - 1] not in ("--model", "--dataset") else Path(w).name for i, w in enumerate(words)]
    code, out, err = minires("lab", *words, "--quick")
    assert (code, out) == (2, "")
    assert re.search(message, err.strip()), err
    assert "Traceback" not in err
    page(err)


def test_a_run_of_another_data_set(minires, trained, page, tmp_path):
    recipe = Recipe.read(trained / "plain20" / "config.toml")
    save(recipe, tmp_path / "other")
    text = (tmp_path / "other" / "config.toml").read_text("utf-8")
    _, _, checkpoint = training.load_run(tmp_path / "other")
    checkpoint.info["recipe"] = {**checkpoint.info["recipe"], "dataset": "cifar100"}
    checkpoint.save(tmp_path / "other" / "last.safetensors")
    assert 'dataset = "cifar10"' in text
    code, out, err = minires("lab", "lesion", "--run", trained / "resnet20", "--plain", tmp_path / "other", "--quick")
    assert (code, out) == (2, "")
    assert re.search(r"other is a run of cifar100 and .*resnet20 of cifar10: compare networks of one data set", err)
    page(err)


def test_a_damaged_checkpoint(minires, trained, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    content = (trained / "plain20" / "last.safetensors").read_bytes()
    (folder / "last.safetensors").write_bytes(content[: len(content) // 2])
    for arguments in (("paths", "--run", folder), ("responses", "--run", trained / "resnet20", "--plain", folder)):
        code, out, err = minires("lab", *arguments, "--quick")
        assert (code, out) == (2, "")
        assert "is cut off or corrupt" in err


def test_shatter_is_given_no_network(minires):
    found = answer(minires, "shatter", "--quick", "--networks", "2", "--json")
    assert found.settings == {"networks": 2, "units": 64, "points": 128, "seed": 0, "quick": True}
    with pytest.raises(
        ConfigError, match="shatter builds networks of its own, with random weights: it looks at no run"
    ):
        catalogue.run("shatter", Setting(run="run"))
    assert "--model" not in minires("lab", "shatter", "--help")[1]
