"""The experiment degradation: curves against a training by hand and files of runs, its verdict, JSON, bad input."""

import json
import math

import numpy as np
import pytest
from short_trainings import dataset, network

import minires as mr
from minires import functional as F
from minires import lab, models
from minires.errors import ConfigError, DataError, ShapeError
from minires.lab import fit
from minires.lab.catalogue import run
from minires.lab.experiments.degradation import shape_of
from minires.lab.setting import Setting
from minires.training import Recipe


def test_a_curve_against_a_training_by_hand():
    """The same batches and updates; wrong answers are counted here, the test error between the steps."""
    model, data, test = network("plain8"), dataset(), dataset(24, seed=5)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    curve = lab.training_curve(model, data, test, steps=5, batch_size=16, seed=3)
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert curve[:3] == (8, 4, False)
    np.testing.assert_array_equal(curve.at, [1, 2, 3, 4, 5])
    wrong, tested = [], []

    def gradients(images, labels):
        if wrong:
            tested.append(1 - fit.evaluated(model, test)[1])
        model.zero_grad()
        output = model(mr.tensor(images))
        loss = F.cross_entropy(output, labels)
        loss.backward()
        wrong.append(np.mean([int(row.argmax()) != label for row, label in zip(output.numpy(), labels)]))
        return loss.item()

    fit.fit(model, data, 5, 16, seed=3, gradients=gradients)
    tested.append(1 - fit.evaluated(model, test)[1])
    np.testing.assert_allclose(curve.train_error, wrong)
    np.testing.assert_allclose(curve.test_error, tested)
    assert len(set(wrong)) > 1


def test_points_are_means_of_tenths():
    model, data = network("plain8"), dataset()
    each = lab.training_curve(model, data, data, steps=10, batch_size=16)
    points = lab.training_curve(model, data, data, steps=10, batch_size=16)
    np.testing.assert_array_equal(points.train_error, each.train_error)
    few = lab.training_curve(model, data, data, steps=23, batch_size=16)
    np.testing.assert_array_equal(few.at, [2, 5, 7, 9, 12, 14, 16, 18, 21, 23])
    assert np.isfinite(few.train_error).all()
    assert np.isin(few.train_error[0] * 32, np.arange(33)).all()  # of the 32 images of two steps


def test_a_divergence_has_no_errors():
    model, how = network("plain8", norm="none"), {"steps": 8, "batch_size": 16, "lr": 1e20}
    curve = lab.training_curve(model, dataset(), dataset(), **how)
    losses = fit.fit(model, dataset(), **how)  # of the same steps
    assert 1 <= np.isfinite(losses).sum() < 8
    np.testing.assert_array_equal(np.isfinite(curve.train_error), np.isfinite(losses))
    assert math.isnan(curve.test_error[-1])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("plain20", {}, (20, 4, False)),
        ("resnet14", {"option": "B"}, (14, 4, True)),
        ("preplain8", {}, (8, 4, False)),
        ("preresnet164", {}, (164, 4, True)),
        ("plain8", {"aux_weight": 0.3}, (8, 4, False)),
    ],
)
def test_layers_are_counted(name, options, expected):
    assert shape_of(models.create(name, width=4, **options)) == expected


def curve(depth, residual, last, width=16):
    errors = np.array([0.9, last])
    return lab.Curve(depth, width, residual, np.array([1.0, 2.0]), errors, errors + 0.01)


def result_with(plain, residual, more=()):
    """Errors of networks of 20 and 56 layers."""
    curves = {f"plain{d}": curve(d, False, e) for d, e in zip((20, 56), plain)}
    curves |= {f"resnet{d}": curve(d, True, e) for d, e in zip((20, 56), residual)}
    return lab.degradation(curves | {f"more {i}": c for i, c in enumerate(more)}, "epoch")


@pytest.mark.parametrize(
    ("plain", "residual", "more", "word"),
    [
        ((0.15, 0.25), (0.14, 0.12), (), "seen"),
        ((0.15, 0.171), (0.14, 0.149), (), "seen"),
        ((0.15, 0.169), (0.14, 0.12), (), "unclear"),
        ((0.15, 0.25), (0.14, 0.151), (), "unclear"),
        ((0.15, 0.159), (0.14, 0.12), (), "not seen"),
        ((0.15, 0.25), (0.14, 0.161), (), "not seen"),
        ((0.51, 0.80), (0.14, 0.12), (), "unclear"),
        ((0.15, math.nan), (0.14, 0.12), (), "unclear"),
        ((0.15, 0.25), (0.14,), (), "unclear"),
        ((0.15,), (0.14, 0.12), (), "unclear"),
        # 110 layers of another width are a pair of none; 110 of the same are the deepest
        ((0.15, 0.25), (0.14, 0.12), (curve(110, True, 0.5, 8),), "seen"),
        ((0.15, 0.25), (0.14, 0.12), (curve(110, True, 0.5),), "not seen"),
        ((0.15, 0.25), (0.14, 0.12), (curve(110, False, 0.14),), "not seen"),
        # pairs of another width count as well, each for itself
        ((0.15, 0.25), (0.14, 0.12), (curve(20, False, 0.35, 8), curve(56, False, 0.45, 8)), "seen"),
        ((0.15, 0.25), (0.14, 0.12), (curve(20, False, 0.35, 8), curve(56, False, 0.365, 8)), "unclear"),
        ((0.15, 0.25), (0.14, 0.12), (curve(20, False, 0.35, 8), curve(56, False, 0.35, 8)), "not seen"),
        ((0.15, 0.25), (0.14, 0.12), (curve(20, True, 0.35, 8), curve(56, True, 0.365, 8)), "unclear"),
        ((0.15, 0.25), (0.14, 0.12), (curve(20, True, 0.35, 8), curve(56, True, 0.38, 8)), "not seen"),
    ],
)
def test_the_verdict_follows_its_rule(plain, residual, more, word):
    assert result_with(plain, residual, more).verdict.word == word


def test_json_and_pictures(tmp_path):
    result = result_with((0.15, 0.25), (0.14, 0.12))
    assert result.pairs == [("plain20", "plain56"), ("resnet20", "resnet56")]
    assert math.isclose(result.gap("plain20", "plain56"), 0.1)
    again = lab.Degradation.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.train_error["plain56"], [0.9, 0.25])
    again.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    heads, rows = again.rows()
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[1][3:] == ["25.00%", "26.00%", "+10.00"]


def test_the_command_trains_networks():
    setting = Setting(width=2, image_size=8, batch_size=8, quick=True)
    progress = []
    found = run("degradation", setting, lambda *given: progress.append(given), steps=3, depths="8,14")
    assert found.networks == ["plain8", "plain14", "resnet8", "resnet14"]
    assert (found.depths, found.residual, found.unit) == ([8, 14, 8, 14], [0, 0, 1, 1], "step")
    assert (progress[0], progress[-1][0]) == ((0, 12, "training plain8"), 11)
    assert found.settings["model"] == "resnet20"


# --- the runs of a folder


def runs(folder, epochs=2, **changed):
    """Four runs, as training writes them; changed: of the recipe of resnet56."""
    for name, last in (("plain20", 0.85), ("plain56", 0.75), ("resnet20", 0.86), ("resnet56", 0.88)):
        recipe = Recipe(model=name, epochs=epochs, **(changed if name == "resnet56" else {}))
        (folder / name).mkdir(parents=True)
        (folder / name / "config.toml").write_text(recipe.to_toml("0"))
        rows = [{"epoch": n + 1, "lr": 0.1, "train_acc": last if n else 0.1, "test_acc": 0.5} for n in range(epochs)]
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_runs_of_a_folder(tmp_path):
    folder = runs(tmp_path / "lab", model_options={"width": 8}, threads=1, seed=4)
    auxiliary = Recipe(model="plain56", model_options={"aux_weight": 0.3})
    for other in (Recipe(model="preresnet20"), auxiliary):  # of another paper, and of another loss
        (folder / f"another-{other.model}").mkdir()
        (folder / f"another-{other.model}" / "config.toml").write_text(other.to_toml("0"))
        (folder / f"another-{other.model}" / "metrics.jsonl").write_text("no JSON")
    (folder / "notes").mkdir()
    found = lab.curves_in(folder)
    assert list(found) == ["plain20", "plain56", "resnet20", "resnet56"]
    assert found["resnet56"][:3] == (56, 8, True)
    np.testing.assert_allclose(found["plain56"].train_error, [0.9, 0.25])
    np.testing.assert_allclose(found["plain56"].test_error, [0.5, 0.5])
    result = run("degradation", Setting(), trained=str(folder))
    assert (result.unit, result.settings["trained"], "model" in result.settings) == ("epoch", str(folder), False)
    assert result.verdict.word == "unclear"  # no two residual networks of one width


def test_folders_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        lab.curves_in(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no runs of networks such as plain20"):
        lab.curves_in(tmp_path)


def test_runs_by_different_recipes(tmp_path, page):
    with pytest.raises(ConfigError) as error:
        lab.curves_in(runs(tmp_path / "a", lr=0.2))
    page(str(error.value))
    with pytest.raises(ConfigError, match=r"model_options is .* and .*option"):
        lab.curves_in(runs(tmp_path / "b", model_options={"option": "B"}))


def test_a_run_that_is_not_finished(tmp_path, page):
    folder = runs(tmp_path, 3)
    path = folder / "resnet56" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ConfigError) as error:
        lab.curves_in(folder)
    page(str(error.value))


HOSTILE = [
    (b"[1]", "line 1, is not a JSON object"),
    (b"\xff", "line 1, is not a JSON object"),
    (b"[" * 100_000, "metrics.jsonl"),
    (b'{"epoch": 1, "train_acc": 1.5, "test_acc": 0}', "line 1, is not the row of epoch 1 with a train_acc"),
    (b'{"epoch": 1, "train_acc": 0.5, "test_acc": null}', "with a test_acc from 0 to 1, but has None"),
    (b'{"epoch": 1, "train_acc": true, "test_acc": 0}', "train_acc from 0 to 1, but has True"),
    (b'{"epoch": 1, "train_acc": NaN, "test_acc": 0}', "train_acc from 0 to 1, but has nan"),
    (b'{"epoch": 2, "train_acc": 0.5, "test_acc": 0}', "is not the row of epoch 1"),
    (b" " * ((16 << 20) + 1), "more than 16,777,216 bytes"),
]


def test_runs_with_epochs_that_were_not_evaluated(tmp_path):
    folder = runs(tmp_path / "lab")
    for path in folder.rglob("metrics.jsonl"):
        first, second = path.read_text().splitlines()
        path.write_text(json.dumps({k: v for k, v in json.loads(first).items() if k != "test_acc"}) + f"\n{second}\n")
    with pytest.raises(ConfigError, match="has epochs without an evaluation: compare runs with eval_every = 1"):
        lab.curves_in(folder)


def test_runs_whose_length_is_in_steps(tmp_path):
    folder = runs(tmp_path / "lab")
    for run_folder in folder.iterdir():  # of two rows, where the recipe's epochs are five
        (run_folder / "config.toml").write_text(Recipe(model=run_folder.name, steps=7).to_toml("0"))
    with pytest.raises(ConfigError, match="is not finished: compare runs that are complete"):
        lab.curves_in(folder)
    for run_folder in folder.iterdir():
        (run_folder / "summary.json").write_text("{}")
    assert [len(curve.at) for curve in lab.curves_in(folder).values()] == [2] * 4


def test_metrics_that_no_run_writes(tmp_path, page):
    folder = runs(tmp_path, 1)
    for line, match in HOSTILE:
        (folder / "plain56" / "metrics.jsonl").write_bytes(line)
        with pytest.raises(DataError, match=match) as error:
            lab.curves_in(folder)
        if b"1.5" in line:
            page(str(error.value))


def test_bad_input():
    with pytest.raises(ConfigError, match="the curves of networks that are compared have the same number of points"):
        lab.degradation({"a": curve(20, True, 0.1), "b": curve(20, True, 0.1)._replace(at=np.zeros(3))})
    with pytest.raises(ConfigError, match="the same number of points, not"):
        lab.degradation({})
    with pytest.raises(DataError, match=r"errors are fractions from 0 to 1, and a has 15"):
        lab.degradation({"a": curve(20, True, 15)})
    with pytest.raises(ConfigError, match="Linear has no blocks"):
        lab.training_curve(mr.nn.Linear(3, 4), dataset(), dataset())
    with pytest.raises(ConfigError, match="steps must be a whole number from 1"):
        lab.training_curve(network("plain8"), dataset(), dataset(), steps=0)
    with pytest.raises(ConfigError, match="give --trained, a folder of runs, in place of --run"):
        run("degradation", Setting(run="runs/a"))
    with pytest.raises(ConfigError, match="unknown model 'plain21'"):
        run("degradation", Setting(), depths="21,56")
    with pytest.raises(ShapeError):
        lab.training_curve(network("plain8", in_channels=1), dataset(), dataset(), steps=1)
