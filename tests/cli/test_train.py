import json
import re
from pathlib import Path

import pytest

from minires.cli.train import TABLES, recipe_of
from minires.training import Checkpoint, Recipe


def test_train_prints_a_line_an_epoch_and_fills_the_folder(minires, small_run, tmp_path):
    code, out, err = minires(*small_run, "--out", "my/run")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any(re.match(r" +model +resnet8, 75,290 parameters", line) for line in lines)
    assert any(re.match(r" +data +cifar10: 40 training, 24 test images, 10 classes", line) for line in lines)
    assert [line.split()[0] for line in lines if re.match(r" +\d/2 ", line)] == ["1/2", "2/2"]
    assert re.search(r"test accuracy \d+\.\d\d % after 2 epochs", out)
    for name in ("config.toml", "metrics.jsonl", "summary.json", "last.safetensors", "curves.png"):
        assert (tmp_path / "my/run" / name).exists()
    assert str(Path("my/run/curves.png")) in out


def test_options_change_single_entries_of_a_recipes_tables(tmp_path, monkeypatch):
    """The recipe has a factor of biases and the network's widths, which stay as they are."""
    monkeypatch.chdir(tmp_path)
    base = Recipe.named("minutes5")
    given = {"lr_factors": {"head": 0.1}, "model_options": {"whitening_bias": False}, "epochs": 2}
    changed = recipe_of("minutes5", given, TABLES)
    assert changed.lr_factors == {**base.lr_factors, "head": 0.1}
    assert changed.model_options == {**base.model_options, "whitening_bias": False}
    assert len(changed.lr_factors) > 1
    assert len(changed.model_options) > 1
    assert changed.epochs == 2
    assert recipe_of("minutes5", {**given, "model": "resnet20", "model_options": {}}, TABLES).model_options == {}
    assert recipe_of("minutes5", given).lr_factors == {"head": 0.1}  # of a sweep, which names whole settings
    Path("my.toml").write_text('model = "resnet8"\n[model_options]\nwidth = 8\n')
    other = {"model": "wrn16_4", "model_options": {"stochastic_depth": 0.3}}
    assert recipe_of("my.toml", other, TABLES).model_options == {"stochastic_depth": 0.3}
    assert recipe_of("my.toml", {"model_options": {"option": "B"}}, TABLES).model_options == {"width": 8, "option": "B"}


def test_quiet_is_one_line(minires, small_run):
    code, out, err = minires(*small_run, "--epochs", 1, "--quiet")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"test accuracy \d+\.\d\d % \(runs.resnet8-cifar10-1\)\n", out)


def test_options_reach_the_recipe(minires, small_run, cifar):
    options = "--lr 0.05 --schedule multi-step --milestones 0.4,0.8 --gamma 0.5 --momentum 0.8 --no-nesterov "
    options += (
        "--weight-decay 1e-3 --decay-norms --label-smoothing 0.1 --crop 2 --reflect --no-flip --cutout 3 --val 8 "
    )
    options += "--no-fusion --no-winograd --seed 3 --threads 1 --model-option option=B --out run --quiet"
    assert minires(*small_run, *options.split())[0] == 0
    assert Recipe.read("run/config.toml") == Recipe(
        model="resnet8",
        model_options={"option": "B"},
        dataset="cifar10",
        data_dir=str(cifar),
        val=8,
        epochs=2,
        batch_size=16,
        seed=3,
        threads=1,
        lr=0.05,
        momentum=0.8,
        nesterov=False,
        weight_decay=1e-3,
        decay_norms=True,
        label_smoothing=0.1,
        schedule="multi-step",
        warmup=0.0,
        milestones=(0.4, 0.8),
        gamma=0.5,
        crop=2,
        reflect=True,
        flip=False,
        cutout=3,
        fusion=False,
        winograd=False,
    )
    assert "best_val_acc" in json.loads(Path("run/summary.json").read_text())
    assert Path("run/best.safetensors").exists()


def test_no_augment_leaves_what_is_asked_for(minires, small_run):
    minires(*small_run, "--epochs", 1, "--no-augment", "--flip", "--out", "run", "-q")
    recipe = Recipe.read("run/config.toml")
    assert (recipe.crop, recipe.flip, recipe.cutout) == (0, True, 0)


def test_the_same_command_gives_the_same_bits(minires, small_run):
    for out in ("a", "b"):
        minires(*small_run, "--out", out, "-q")
    assert Path("a/last.safetensors").read_bytes() == Path("b/last.safetensors").read_bytes()


def test_a_folder_with_a_run_is_refused(minires, small_run):
    minires(*small_run, "--epochs", 1, "--out", "run", "-q")
    before = Path("run/last.safetensors").read_bytes()
    code, _, err = minires(*small_run, "--out", "run")
    assert code == 2
    assert err.startswith("error: run already holds a run (config.toml): choose another folder")
    assert Path("run/last.safetensors").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused(minires, small_run):
    Path("file").touch()
    code, _, err = minires(*small_run, "--out", "file/run")
    assert code == 2
    assert "is a file, not a folder" in err


def test_a_full_disk_is_a_sentence(minires, small_run, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Checkpoint, "save", full)
    code, _, err = minires(*small_run, "--out", "run", "-q")
    assert code == 2
    assert re.search(r"error: No space left on device: run.last.safetensors", err)


def test_debug_shows_the_traceback(small_run):
    from minires.cli import main
    from minires.errors import ConfigError

    with pytest.raises(ConfigError, match="epochs"):
        main([*small_run, "--epochs", "0", "--debug"])
