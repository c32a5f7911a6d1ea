import numpy as np
import pytest

import minires as mr
from minires.errors import ConfigError, DataError
from minires.training import Recipe, build_trainer
from minires.training import build as build_module
from minires.training.build import build_optimizer, build_schedule, load_data


@pytest.fixture
def few_images(monkeypatch, tiny):
    monkeypatch.setattr(build_module.data, "load", lambda name, data_dir, seed: tiny)


def lrs(**settings):
    """The learning rate of every step of a run of 10 epochs of 10 steps."""
    recipe = Recipe(epochs=10, lr=0.5, **settings)
    optimizer = build_optimizer(recipe, mr.nn.Linear(2, 2))
    schedule = build_schedule(recipe, optimizer, 100)
    found = []
    for _ in range(100):
        found.append(optimizer.param_groups[0]["lr"])
        assert {group["lr"] for group in optimizer.param_groups} == {found[-1]}
        schedule.step()
    return np.array(found)


@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.3])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "linear", "multi-step", "constant"])
def test_schedules_rise_for_the_warmup_to_lr_and_never_again(schedule, warmup):
    lr = lrs(schedule=schedule, warmup=warmup, milestones=(0.5, 0.75))
    peak = int(lr.argmax())
    assert abs(peak - 100 * warmup) <= 1
    assert lr.max() == pytest.approx(0.5, rel=1e-2)
    assert (np.diff(lr[: peak + 1]) > 0).all()
    assert (np.diff(lr[peak:]) <= 0).all()
    assert lr[0] > 0
    assert lr[-1] == 0.5 if schedule == "constant" else lr[-1] < 0.02 if schedule != "multi-step" else True


def test_milestones_are_parts_of_the_whole_run():
    lr = lrs(schedule="multi-step", warmup=0.1, milestones=(0.5, 0.75), gamma=0.1)
    np.testing.assert_allclose(lr[[49, 50, 74, 75]], [0.5, 0.05, 0.05, 0.005])


def test_points_of_the_schedule_may_be_steps():
    for settings in ({"warmup": 10, "milestones": (50, 75)}, {"warmup": 10.0, "milestones": (50.0, 75.0)}):
        in_steps = lrs(schedule="multi-step", gamma=0.1, **settings)
        np.testing.assert_array_equal(
            in_steps, lrs(schedule="multi-step", warmup=0.1, milestones=(0.5, 0.75), gamma=0.1)
        )
    np.testing.assert_array_equal(lrs(schedule="one-cycle", warmup=20), lrs(schedule="one-cycle", warmup=0.2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"milestones": (50, 100)}, "milestones has step 100, and the run ends at step 100"),
        (
            {"warmup": 200},
            "warmup has step 200, and the run ends at step 100: give fractions of the run, or a longer run",
        ),
    ],
)
def test_points_beyond_the_run(settings, said):
    with pytest.raises(ConfigError, match=said):
        lrs(schedule="multi-step", **settings)


def test_the_deepest_networks_of_he2015_begin_with_a_tenth_of_the_learning_rate():
    rates = {}
    for name in ("resnet20", "resnet110"):
        recipe = Recipe.named("he2015", model=name)
        optimizer = build_optimizer(recipe, mr.nn.Linear(2, 2))
        schedule = build_schedule(recipe, optimizer, recipe.total_steps(391))
        rates[name] = [optimizer.param_groups[0]["lr"]]
        for step in range(64_000):
            schedule.step(0.9 if step < 400 else 0.7)
            rates[name].append(optimizer.param_groups[0]["lr"])
    usual, deep = (np.array(rates[name]) for name in ("resnet20", "resnet110"))
    steps = np.arange(64_001)
    np.testing.assert_allclose(usual, 0.1 * 0.1 ** (1.0 * (steps >= 32_000) + (steps >= 48_000)))
    cold = steps <= 425  # when the mean error of 50 steps falls below 80 %: half of them are at 70 %
    np.testing.assert_allclose(deep, np.where(cold, 0.01, usual))


def test_norms_and_biases_decay_only_when_asked():
    model = mr.models.create("resnet8")
    decayed = build_optimizer(Recipe(decay_norms=False, weight_decay=0.1), model).param_groups
    assert {p.ndim > 1 for group in decayed if group["weight_decay"] for p in group["params"]} == {True}
    [group] = build_optimizer(Recipe(decay_norms=True, weight_decay=0.1), model).param_groups
    assert group["weight_decay"] == 0.1


def test_trainer_of_a_recipe(few_images, tiny):
    recipe = Recipe(epochs=2, batch_size=10, val=8, label_smoothing=0.1, crop=2, flip=False, cutout=3, threads=1)
    mr.set_num_threads(2)  # what the recipe says counts
    trainer = build_trainer(recipe)
    assert mr.get_num_threads() == 1
    assert len(trainer.train_loader.dataset) == len(tiny[0]) - 8
    assert len(trainer.train_loader) == 4
    assert (trainer.epochs, trainer.label_smoothing) == (2, 0.1)
    augment = trainer.train_loader.augment
    assert (augment.pad, augment.reflect, augment.flip, augment.cutout) == (2, False, False, 3)
    assert trainer.test_loader.augment is None
    assert not trainer.test_loader.shuffle


def test_every_split_is_normalised_by_the_images_trained_on(few_images):
    train, test, val = load_data(Recipe(val=8))
    np.testing.assert_array_equal(train.mean, test.mean)
    np.testing.assert_array_equal(train.std, val.std)
    assert load_data(Recipe())[2] is None


def test_same_seed_same_start(few_images):
    a, b, c = (build_trainer(Recipe(seed=seed)).model.state_dict() for seed in (1, 1, 2))
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"val": 48}, "val = 48 leaves nothing of the 48 training images of shapes: hold out at most 47"),
        ({"model": "resnet2"}, "unknown model 'resnet2' (did you mean"),
        ({"model_options": {"optoin": "B"}}, "no option 'optoin' (did you mean option?)"),
        ({"model_options": {"num_classes": "ten"}}, "cannot be made with the options {'num_classes': 'ten'}"),
        ({"threads": 4096}, "4096 threads"),
    ],
)
def test_what_cannot_be_built(few_images, settings, said):
    with pytest.raises(ConfigError) as caught:
        build_trainer(Recipe(**settings))
    assert said in str(caught.value)


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown data set 'cifr10' \(did you mean cifar10"):
        build_trainer(Recipe.for_dataset("cifr10"))
    with pytest.raises(DataError, match="does not exist"):
        build_trainer(Recipe.for_dataset("cifar10", data_dir=str(tmp_path / "nowhere")))
