"""The experiment landscape: surfaces that are known, its rule, resuming to the same bits, bad input."""

import copy
import json
import math
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from short_trainings import dataset, network

import minires as mr
from minires import functional as F
from minires import lab, nn
from minires.data import Dataset
from minires.errors import ConfigError, DataError, DtypeError
from minires.lab import catalogue, fit
from minires.lab.experiments import plane as planes
from minires.lab.experiments.plane import BATCH, STORED, Plane, direction
from minires.lab.setting import Setting, normalised
from minires.recorded import recording

POINTS, IMAGES = 5, 20


def batch(dtype=np.float32, count=IMAGES):
    return normalised(dataset(), np.arange(count), dtype)


@pytest.fixture(scope="module")
def trained():
    data, found = dataset(), []
    for name in ("resnet8", "plain8"):
        model = network(name)
        fit.fit(model, data, 40, 16)
        fit.estimate_statistics(model, data)
        found.append(model)
    return found


@pytest.fixture(scope="module")
def result(trained):
    return lab.landscape(trained[0], batch(), trained[1], points=POINTS, batch_size=8)


# --- directions


def test_filter_norms_against_a_loop():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    weights[1] = 0
    weights[2] *= 100
    found = direction(weights, rng)
    assert found.dtype == np.float32
    for o in range(3):
        sums = [sum(float(v) ** 2 for v in a[o].ravel()) for a in (weights, found)]
        assert math.isclose(sums[0], sums[1], rel_tol=1e-5), o
    rows = rng.standard_normal((4, 5))
    np.testing.assert_allclose(np.linalg.norm(direction(rows, rng), axis=1), np.linalg.norm(rows, axis=1))
    assert direction(weights[0, 0, 0], rng) is None


def test_norms_and_biases_are_left_alone():
    model = network("resnet8", option="B")
    plane = Plane(model, batch(), 8, STORED, 0)
    plane.at(0.5, -1.0)
    moved = plane.model.state_dict()
    for name, before in model.state_dict().items():
        assert (moved[name] == before).all() == (before.ndim < 2), name
    first, second = ({id(m[0]): m[i] for m in plane.moves} for i in (2, 3))
    for name, p in plane.model.named_parameters():
        if p.ndim > 1:
            before = model.state_dict()[name]
            np.testing.assert_allclose(p.data, before + 0.5 * first[id(p)] - second[id(p)], rtol=1e-5, atol=1e-6)
            cosine = (first[id(p)] * second[id(p)]).sum() / np.linalg.norm(first[id(p)]) / np.linalg.norm(second[id(p)])
            assert abs(cosine) < 5 / math.sqrt(p.size), name


# --- surfaces that are known


class Quadratic(nn.Module):
    """Logits 0 and z, of which the cross-entropy with the label 0 is log(1 + exp z) = Σ a·w² + 300."""

    def __init__(self, signs):
        self.weight = nn.Parameter(np.linspace(0.5, 2, 12).reshape(2, 6))
        self.a = np.linspace(1, 3, 12).reshape(2, 6) * signs

    def forward(self, x):
        loss = (self.weight * self.weight * mr.tensor(self.a)).sum() + 300.0
        z = F.log(F.exp(loss) - 1.0)
        return F.flatten(x, 1) * 0.0 + F.stack([z * 0.0, z])


@pytest.mark.parametrize("signs", [1.0, np.where(np.arange(12).reshape(2, 6) % 2, 1.0, -1.0)])
def test_a_quadratic_surface(signs):
    model = Quadratic(signs)
    images = np.zeros((4, 2, 1, 1)), np.zeros(4, np.int64)
    found = lab.landscape(model, images, points=7, span=0.6, seed=3)
    [(_, w, d1, d2)] = Plane(model, images, 4, STORED, 3).moves
    expected = [
        [(model.a * (w + x * d1 + y * d2) ** 2).sum() + 300 for x in found.steps]  # the columns are x
        for y in found.steps
    ]
    np.testing.assert_allclose(found.steps, [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6], atol=1e-15)
    np.testing.assert_allclose(found.loss[0], expected, rtol=1e-12)
    hessian = [[2 * (model.a * a * b).sum() for a in (d1, d2)] for b in (d1, d2)]
    values = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(found.curvatures[0], np.broadcast_to(values, (5, 5, 2)), rtol=1e-7)
    assert (found.non_convex[0] == (values[0] < -0.1 * abs(values[1]))).all()
    assert (found.error == 1).all()  # z is the larger
    assert found.classes == 2


def test_the_centre_is_the_network(trained, result):
    data = dataset().take(np.arange(IMAGES))
    data = Dataset(data.images, data.labels, data.classes, data.name, dataset().mean, dataset().std)
    for k, model in enumerate(trained):
        loss, accuracy = fit.evaluated(model, data)
        assert math.isclose(result.loss[k, 2, 2], loss, rel_tol=1e-5)
        assert result.error[k, 2, 2] == 1 - accuracy
    assert result.loss[0, 2, 2] < 0.5 * result.loss[0, 0, 0]


@pytest.mark.parametrize("statistics", [STORED, BATCH])
def test_a_point_by_hand(trained, statistics):
    images, labels = batch()
    found = lab.landscape(
        trained[0], (images, labels), points=POINTS, batch_size=8, statistics=statistics, seed=5, span=0.4
    )
    moves = Plane(trained[0], (images, labels), 8, statistics, 5).moves
    model, moving = copy.deepcopy(trained[0]), iter(moves)
    for p in model.parameters():
        if p.ndim > 1:
            _, w, d1, d2 = next(moving)
            p.data = w - 0.2 * d1 + 0.4 * d2
    model.train(statistics == BATCH)
    losses = []
    with mr.no_grad(), mr.fusion(False):
        for i in (0, 8, 16):
            logits = model(mr.tensor(images[i : i + 8]))
            losses += list(F.cross_entropy(logits, labels[i : i + 8], reduction="none").numpy())
    assert math.isclose(found.loss[0, 4, 1], np.mean(losses), rel_tol=2e-4)


@pytest.mark.parametrize("batch_size", [5, 8])
def test_recorded_predictions_give_the_same_bits(trained, batch_size):
    how = {"points": POINTS, "batch_size": batch_size}
    found = lab.landscape(trained[0], batch(), **how)
    plane = Plane(trained[0], batch(), batch_size, STORED, 0)
    for _ in range(3):
        plane.at(0.0, 0.0)
    assert {p.state for p in plane.predictions.values()} == {"checked"}
    with recording(False):
        np.testing.assert_array_equal(lab.landscape(trained[0], batch(), **how).loss, found.loss)
    assert len(np.unique(found.loss)) == POINTS**2


# --- what is kept, and gone on from


def forget(row):
    """A progress that ends the computation at a point, as Ctrl-C does."""

    def progress(done, total, what):
        if done == row:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("statistics", [STORED, BATCH])
def test_an_interrupted_landscape_ends_with_the_same_bits(trained, tmp_path, monkeypatch, statistics):
    how = {"points": POINTS, "batch_size": 8, "statistics": statistics}
    whole = lab.landscape(trained[0], batch(), trained[1], **how)
    said = []
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: 3 of 10 rows are kept in .*landscape-rows\.json"):
        lab.landscape(
            trained[0],
            batch(),
            trained[1],
            **how,
            folder=tmp_path / "new" / "one",
            say=said.append,
            progress=forget(17),
        )
    points, at = [], Plane.at
    monkeypatch.setattr(Plane, "at", lambda self, x, y: points.append((x, y)) or at(self, x, y))
    again = lab.landscape(trained[0], batch(), trained[1], **how, folder=tmp_path / "new" / "one", say=said.append)
    assert len(points) == 4 + 7 * POINTS  # the first four measure the cost
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.error, whole.error)
    points.clear()
    third = lab.landscape(trained[0], batch(), trained[1], **how, folder=tmp_path / "new" / "one", say=said.append)
    assert points == []
    assert third.to_json() == whole.to_json()
    assert "5×5 points of 20 images around residual and plain: about " in said[0]
    assert said[1].startswith("3 of 10 rows are there already, the others of 5×5 points")
    assert said[2] == "all rows are there already"
    assert [path.name for path in (tmp_path / "new" / "one").iterdir()] == ["landscape-rows.json"]


def test_losses_that_are_not_finite_are_kept_too(tmp_path):
    rows = planes.Rows(tmp_path / "rows", {"seed": 1}, (2, 3))
    rows.append([planes.Point(math.inf, 0.5), planes.Point(math.nan, 1.0), planes.Point(0.1 + 0.2, 0.0)])
    again = planes.Rows(tmp_path / "rows", {"seed": 1}, (2, 3)).rows
    np.testing.assert_array_equal(again, rows.rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"rows of another landscape \(seed is 0 there, not 1\)"),
        ({"points": 7}, "points is 5 there, not 7"),
        ({"span": 2.0}, r"span is 1\.0 there, not 2\.0"),
        ({"batch_size": 4}, "batch_size is 8 there, not 4"),
        ({"statistics": "batch"}, "other statistics"),
        ({"batch": 1}, "other images"),
        ({"model": 1}, "other weights of residual"),
        ({"plain": None}, "another landscape .other networks.: delete it"),
    ],
)
def test_rows_of_another_landscape_are_refused(trained, tmp_path, change, message, page):
    how = {"points": POINTS, "batch_size": 8, "folder": tmp_path, "batch": batch(), "model": trained[0]}
    how["plain"] = trained[1]
    with pytest.raises(KeyboardInterrupt):
        lab.landscape(**how, progress=forget(5))
    before = (tmp_path / "landscape-rows.json").read_bytes()
    if "batch" in change:
        change = {"batch": (batch()[0] + 1, batch()[1])}
    if "model" in change:
        change = {"model": copy.deepcopy(trained[0])}
        change["model"].bn1.running_mean[0] += 1
    with pytest.raises(ConfigError, match=message) as error:
        lab.landscape(**how | change)
    page(str(error.value))
    assert (tmp_path / "landscape-rows.json").read_bytes() == before


def damaged(text):
    """Contents of a file that cannot be right."""
    content = json.loads(text)
    yield text[: len(text) // 2]
    yield text.replace('"seed": 0', '"seed": 1')
    yield ""
    yield "[]"
    yield json.dumps({"sha256": planes._sum({"key": 1}), "key": 1})
    for rows in (3, [[3]], [[[1, 2, 3]]], [[["one", 2]] * POINTS], [[[1.0, 0.5]] * 4], [[[1.0, 0.5]] * POINTS] * 6):
        changed = {"key": content["key"], "rows": rows}
        yield json.dumps({"sha256": planes._sum(changed), **changed})


def test_damaged_rows_are_refused(trained, tmp_path, page):
    how = {"points": POINTS, "batch_size": 8, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        lab.landscape(trained[0], batch(), **how, progress=forget(5))
    path = tmp_path / "landscape-rows.json"
    for text in damaged(path.read_text("utf-8")):
        path.write_text(text, "utf-8")
        with pytest.raises(DataError, match=r"landscape-rows\.json is damaged, or no file of rows") as error:
            lab.landscape(trained[0], batch(), **how)
        page(str(error.value))
        assert path.read_text("utf-8") == text
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is damaged"):
        lab.landscape(trained[0], batch(), **how)


# --- the network, JSON, bad input


@pytest.mark.parametrize("statistics", [STORED, BATCH])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, OSError])
def test_the_model_is_not_changed(statistics, error):
    model = network().train()
    model.layer1[0].eval()
    model.fc.bias.grad = np.ones(4, np.float32)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    modes, versions = [m.training for m in model.modules()], [p.version for p in model.parameters()]

    def progress(done, total, what):
        if error is not None and done == 7:
            raise error("stop")

    with pytest.raises(error) if error is not None else nullcontext():
        lab.landscape(model, batch(), points=POINTS, batch_size=8, statistics=statistics, progress=progress)
    assert all((array == before[name]).all() for name, array in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.version for p in model.parameters()] == versions
    assert (model.fc.bias.grad == 1).all()
    assert all(p.grad is None for p in model.parameters() if p is not model.fc.bias)


def test_json_and_pictures(trained, result, tmp_path):
    alone = lab.landscape(trained[0], batch(), points=POINTS, span=100.0)
    alone.loss[0, 0, :2] = math.nan
    flat = copy.deepcopy(result)
    flat.loss[:] = 1.0
    for found in (result, alone, flat):
        again = lab.Landscape.from_json(found.to_json())
        for name, value in vars(found).items():
            np.testing.assert_array_equal(getattr(again, name), value)
        assert again.to_json() == found.to_json()
        again.plot(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 5000
        heads, rows = again.rows()
        assert {len(row) for row in rows} == {len(heads)}
        assert len(rows) == len(found.networks)


def test_progress(trained):
    seen = []
    lab.landscape(trained[0], batch(), points=POINTS, progress=lambda *given: seen.append(given[:2]))
    assert seen == [(i, 25) for i in range(25)]


def test_an_untrained_network(monkeypatch):
    monkeypatch.setattr(Setting, "datasets", lambda self: (dataset(200), dataset()))
    setting = Setting("resnet8", width=4, quick=True, seed=1, batch_size=64, image_size=8, say=print)
    result = catalogue.run("landscape", setting, None, steps=0, points=5, images=16)
    assert result.networks == ["resnet8", "plain8"]
    assert result.verdict.word == "unclear"
    assert "resnet8 has learnt nothing" in result.verdict.because
    assert result.settings["images"] == 16
    assert not {"out", "say"} & set(result.settings)
    with pytest.raises(ConfigError, match="200 images are more than the 128 training images that there are"):
        catalogue.run("landscape", setting, None, images=200)


def test_a_landscape_that_takes_too_long(trained, monkeypatch, page):
    """A point that takes an hour."""
    clock = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(sys.modules[lab.Landscape.__module__].time, "perf_counter", lambda: next(clock))
    with pytest.raises(ConfigError, match="5×5 points of 20 images around residual would take about 25 hours") as error:
        lab.landscape(trained[0], batch(), points=POINTS)
    page(str(error.value))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"points": 10}, "points must be an odd number from 5 to 201, not 10"),
        ({"points": 3}, "points must be an odd number from 5 to 201, not 3"),
        ({"points": 203}, "points must be an odd number from 5 to 201, not 203"),
        ({"span": 0.0}, "span is how far the plane goes, in norms of the filters, up to 100, not 0"),
        ({"span": math.nan}, "span is how far the plane goes"),
        ({"span": 101.0}, "span is how far the plane goes"),
        ({"statistics": "none"}, "statistics of batch norm are 'stored' or 'batch', not 'none'"),
        ({"batch_size": 0}, "a landscape takes 1 to 50,000 images, not 20 in batches of 0"),
        ({"names": ("a", "a")}, "two networks are called a"),
    ],
)
def test_bad_input(trained, how, message):
    with pytest.raises(ConfigError, match=message):
        lab.landscape(trained[0], batch(), trained[1], **how)


def test_bad_networks_and_images(trained):
    with pytest.raises(DtypeError, match="images are float64, and the weights of residual float32"):
        lab.landscape(trained[0], batch(np.float64))
    with pytest.raises(ConfigError, match="a landscape takes 1 to 50,000 images, not 0 in batches"):
        lab.landscape(trained[0], (batch()[0][:0], batch()[1][:0]))
    model = network()
    model.fc.weight.data[0] = np.nan
    with pytest.raises(DataError, match="the loss of plain is not finite"):
        lab.landscape(trained[0], batch(), model, points=POINTS)
    for how in ({"images": 0}, {"points": 0}, {"span": -1.0}, {"statistics": "none"}):  # before anything is trained
        with pytest.raises(ConfigError, match=r"a landscape takes|points must|span is|statistics of"):
            catalogue.run("landscape", Setting("resnet8", data_dir="nowhere"), None, **how)
