"""Parameter groups and learning rates of a recipe's optimizer; schedules are in test_build.py."""

import numpy as np
import pytest

import minires as mr
from minires import optim
from minires.errors import ConfigError
from minires.training import Recipe, freeze, named_recipes
from minires.training.optimization import build_optimizer, build_schedule, role


def named(model, params):
    names = {p: name for name, p in model.named_parameters()}
    return [names[p] for p in params]


def test_roles():
    model = mr.models.resnet8()
    assert role(model.conv1.weight) == "filters"
    assert role(model.fc.weight) == "head"
    assert {role(p) for p in (model.fc.bias, model.bn1.weight, model.bn1.bias)} == {"biases"}


@pytest.mark.parametrize("decay_norms", [False, True])
def test_groups_without_factors_are_those_of_earlier_checkpoints(decay_norms):
    model = mr.models.resnet8()
    optimizer = build_optimizer(Recipe(decay_norms=decay_norms, weight_decay=0.1, lr=0.2), model)
    if decay_norms:
        expected = [{"params": list(model.parameters()), "weight_decay": 0.1}]
    else:
        expected = optim.split_decay(model, 0.1)
    assert [group["params"] for group in optimizer.param_groups] == [group["params"] for group in expected]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [g["weight_decay"] for g in expected]
    assert {group["lr"] for group in optimizer.param_groups} == {0.2}


def test_factors_on_learning_rates():
    model = mr.models.resnet8()
    recipe = Recipe(lr=0.5, weight_decay=0.1, lr_factors={"biases": 64.0, "head": 0.5}, decay_norms=True)
    groups = {group["lr"]: group for group in build_optimizer(recipe, model).param_groups}
    assert set(groups) == {0.5, 32.0, 0.25}
    assert named(model, groups[0.25]["params"]) == ["fc.weight"]
    assert {role(p) for p in groups[32.0]["params"]} == {"biases"}
    for lr, group in groups.items():
        assert lr * group["weight_decay"] == pytest.approx(0.05)  # the part of the weights that a step takes away
    optimizer = build_optimizer(recipe, model)
    schedule = build_schedule(recipe.with_settings(schedule="one-cycle", warmup=0.5), optimizer, 100)
    for _ in range(49):
        schedule.step()
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.25, 0.5, 32.0])


def test_the_factor_of_the_head_is_that_of_its_bias_too():
    model = mr.models.create("resnet8", aux_weight=0.3)
    recipe = Recipe(lr=0.5, weight_decay=0.1, lr_factors={"head": 4.0})
    groups = build_optimizer(recipe, model).param_groups
    fast = {name for group in groups if group["lr"] == 2.0 for name in named(model, group["params"])}
    assert fast == {"fc.weight", "fc.bias", "aux.fc.weight", "aux.fc.bias"}
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    both = build_optimizer(recipe.with_settings(lr_factors={"head": 4.0, "biases": 1.0}), model).param_groups
    fast = {name for group in both if group["lr"] == 2.0 for name in named(model, group["params"])}
    assert fast == {"fc.weight", "aux.fc.weight"}


def test_recipes_with_names_say_the_factor_of_biases_themselves():
    """So that what they compute does not depend on the bias of a head."""
    factors = [Recipe.named(name).lr_factors for name in named_recipes()]
    assert any("head" in own for own in factors)
    assert all("biases" in own for own in factors if "head" in own)


def test_what_is_frozen_is_not_optimised():
    model = mr.models.resnet8()
    freeze(model, ["stem", "layer1", "layer2"])
    trained = {name for name, p in model.named_parameters() if name.startswith(("layer3", "fc"))}
    for settings in ({}, {"optimizer": "adamw"}, {"optimizer": "muon"}, {"decay_norms": True, "weight_decay": 0.1}):
        optimizer = build_optimizer(Recipe(**settings), model)
        assert set(named(model, optimizer.parameters())) == trained


def test_muon_is_for_filters():
    model = mr.models.create("whitened_resnet11", width1=8, width2=8, width3=8)
    recipe = Recipe(optimizer="muon", lr=0.24, momentum=0.85, muon_momentum=0.6, lr_factors={"head": 2.0})
    optimizer = build_optimizer(recipe, model)
    muon, sgd = optimizer.optimizers
    assert isinstance(muon, optim.Muon)
    assert isinstance(sgd, optim.SGD)
    assert {role(p) for p in muon.parameters()} == {"filters"}
    assert muon.param_groups[0]["momentum"] == 0.6
    assert {group["momentum"] for group in sgd.param_groups} == {0.85}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(named(model, optimizer.parameters())) == trained
    assert "whitening.weight" not in trained
    assert not any(name.endswith("norm1.weight") for name in trained)
    without = build_optimizer(recipe, mr.nn.Linear(3, 2))  # a model without filters
    assert len(without.optimizers) == 1


def test_adamw():
    optimizer = build_optimizer(Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.1), mr.models.resnet8())
    assert isinstance(optimizer, optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_a_linear_schedule_that_does_not_end_at_zero():
    recipe = Recipe(schedule="linear", warmup=0.2, lr=0.5, final_lr=0.07)
    optimizer = build_optimizer(recipe, mr.nn.Linear(2, 2))
    schedule = build_schedule(recipe, optimizer, 100)
    assert [schedule.lr_at(t) for t in (-1, 20, 60, 100)] == pytest.approx([0, 0.5, 0.5 * (1 + 0.07) / 2, 0.035])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam' (did you mean adamw?): choose one of sgd, adamw, muon"),
        ({"lr_factors": {"bias": 2}}, "unknown role 'bias' in lr_factors (did you mean biases?)"),
        ({"lr_factors": {"head": -1}}, "the factor on lr of head must be a number from 0 up, not -1"),
        ({"lr_factors": 3}, "lr_factors must be a table, not 3"),
        ({"average": "swa"}, "unknown average 'swa'"),
        ({"tta": "views"}, "unknown tta 'views' (did you mean views6?): choose one of none, flip, views6"),
        ({"alternate": True, "flip": False}, "alternate says when images are flipped: it goes with flip"),
        ({"final_lr": 1.0}, "final_lr must be a number from 0 up and below 1"),
        ({"muon_momentum": 1}, "muon_momentum must be"),
    ],
)
def test_settings_that_cannot_work(settings, said):
    with pytest.raises(ConfigError) as caught:
        Recipe(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "multi-step", "constant", "one-cycle"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_warm_up_ends_before_the_run(schedule, steps):
    """Nine tenths of four steps, rounded, would be all of them."""
    recipe = Recipe(schedule=schedule, warmup=0.9, lr=0.5, steps=steps)
    optimizer = build_optimizer(recipe, mr.nn.Linear(2, 2))
    schedule = build_schedule(recipe, optimizer, steps)
    assert 0 < max(schedule.lr_at(t) for t in range(steps)) <= 0.5


def test_a_factor_of_zero_freezes():
    model = mr.models.resnet8()
    recipe = Recipe(lr_factors={"biases": 0.0}, decay_norms=True)
    optimizer = build_optimizer(recipe, model)
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        assert np.array_equal(p.data, before[name]) == (role(p) == "biases")
