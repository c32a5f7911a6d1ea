import json
import math
import statistics

import pytest

from minires.errors import ConfigError
from minires.training import Recipe
from minires.training.sweep import mean_and_deviation, outcomes, parse_choices, parse_seeds, points


def test_all_combinations():
    found = points(Recipe().with_settings, {"lr": [0.1, 0.2], "model": ["resnet8", "plain8"]}, [0, 7])
    assert len(found) == 8
    assert [p.name for p in found[:3]] == [
        "lr=0.1/model=resnet8/seed-0",
        "lr=0.1/model=resnet8/seed-7",
        "lr=0.1/model=plain8/seed-0",
    ]
    assert {(p.recipe.lr, p.recipe.model, p.recipe.seed) for p in found} == {
        (lr, model, seed) for lr in (0.1, 0.2) for model in ("resnet8", "plain8") for seed in (0, 7)
    }
    assert len({p.name for p in found}) == 8
    [alone] = points(Recipe().with_settings, {}, [3])
    assert alone == ("seed-3", {}, Recipe(seed=3))


def test_a_model_brings_its_own_settings_of_a_named_recipe():
    def he2015(**settings):
        return Recipe.named("he2015", **settings)

    found = points(he2015, {"model": ["resnet20", "resnet110"]}, [0])
    assert [p.recipe.error_warmup for p in found] == [None, 0.1]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["lr=0.1,0.2"], {"lr": [0.1, 0.2]}),
        (["model=resnet8, plain8", "nesterov=true,false"], {"model": ["resnet8", "plain8"], "nesterov": [True, False]}),
        (["milestones=[0.5,0.75],[0.3]"], {"milestones": [[0.5, 0.75], [0.3]]}),
        (["average=ema"], {"average": ["ema"]}),
        (["sizes=[[24,0.0],[32,0.5]],[]"], {"sizes": [[[24, 0.0], [32, 0.5]], []]}),
        (["model_options={option='B',width=8},{}"], {"model_options": [{"option": "B", "width": 8}, {}]}),
    ],
)
def test_choices(texts, expected):
    assert parse_choices(texts) == expected
    points(Recipe().with_settings, parse_choices(texts), [0])


@pytest.mark.parametrize(("text", "seeds"), [("0-2", [0, 1, 2]), ("0,5", [0, 5]), ("4", [4]), ("7-8, 1", [7, 8, 1])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0,0", "0-10000000000", "1.5", "1" * 30])
def test_seeds_that_cannot_be(text):
    with pytest.raises(ConfigError, match="--seeds takes"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"seed": [1]}, "a sweep over 'seed': seeds are given by --seeds"),
        ({"threads": [1, 2]}, "a sweep over 'threads': no result depends on it"),
        ({"lrs": [1]}, r"a sweep over 'lrs': unknown setting \(did you mean lr"),
        ({"lr": [-1]}, "lr must be a number above 0"),
        ({"lr": [0.1, 0.2, 0.1]}, "a sweep over lr has the folder lr=0.1 twice"),
        ({"data_dir": ["a"]}, "no result depends on it"),
        ({"weights": ["a/b", "a_b"]}, "a sweep over weights has the folder weights=a_b twice: give values that differ"),
        ({"lr": list(range(1, 2000))}, "from 1 to 1000 runs, and these are 1999"),
    ],
)
def test_settings_that_cannot_be(choices, said):
    with pytest.raises(ConfigError, match=said):
        points(Recipe().with_settings, choices, [0])


@pytest.mark.parametrize("texts", [["lr"], ["=1"], ["lr="], ["lr=1", "lr=2"]])
def test_texts_that_cannot_be(texts):
    with pytest.raises(ConfigError, match="--set"):
        parse_choices(texts)


def test_what_came_of_it(tmp_path):
    """The means of the complete runs, by the formula of a sample's deviation."""
    found = points(Recipe().with_settings, {"lr": [0.1, 0.2]}, [0, 1, 2])
    accuracies = iter([0.5, 0.7, 0.6, 0.9])
    for point in found[:4]:
        folder = tmp_path / point.name
        folder.mkdir(parents=True)
        rows = [{"epoch": e, "train_acc": 0.1, "test_acc": 0.2, "seconds": 30} for e in (1, 2)]
        rows[-1]["test_acc"] = next(accuracies)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "summary.json").write_text("{}")
    first, second = outcomes(tmp_path, found)
    assert (first.settings, first.runs, first.complete) == ({"lr": 0.1}, 3, 3)
    assert first.accuracies == {"test": [0.5, 0.7, 0.6]}
    assert first.seconds == [60, 60, 60]
    assert mean_and_deviation(first.accuracies["test"]) == (
        pytest.approx(0.6),
        pytest.approx(statistics.stdev([5, 7, 6]) / 10),
    )
    assert (second.complete, second.accuracies) == (1, {"test": [0.9]})
    assert math.isnan(mean_and_deviation([0.9])[1])
