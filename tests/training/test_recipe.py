from dataclasses import asdict
from pathlib import Path

import pytest

from minires import data, models
from minires.errors import ConfigError
from minires.training import Recipe, named_recipes
from minires.training.recipe import DEFAULTS, SCHEDULES


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "preresnet20", "model_options": {"option": "B", "num_classes": 7}, "threads": 2, "nesterov": False},
        {"weights": "/a b/ö.pth", "weights_sha256": "0f" * 32, "num_classes": 2, "freeze": ("stem", "layer1.0")},
        {"data_dir": 'C:\\new "data"\tä/\x7f', "lr": 1e-7, "weight_decay": 0.1 + 0.2, "milestones": (0.1, 0.2, 0.9)},
    ],
)
def test_toml_reads_back_to_the_same_recipe(settings, tmp_path):
    recipe = Recipe(**settings)
    path = tmp_path / "config.toml"
    path.write_text(recipe.to_toml("0.1.0"), "utf-8")
    assert Recipe.read(path) == recipe


def test_recipes_of_the_package():
    for name in data.names():
        recipe = Recipe.for_dataset(name)
        assert (DEFAULTS / f"{name}.toml").is_file()
        assert recipe.dataset == name
        assert recipe.model in models.names()
    assert {path.name for path in Path(str(DEFAULTS)).iterdir()} == {f"{name}.toml" for name in data.names()}


def test_recipes_that_have_a_name():
    assert "He et al. 2015, §4.2" in named_recipes()["he2015"]
    for name in named_recipes():
        recipe = Recipe.named(name)
        assert recipe.model in models.names()
        assert not recipe.val  # all training images
        assert Recipe.parse(recipe.to_toml("0")) == recipe
    recipe = Recipe.named("he2015", model="resnet56", steps=32_000)
    assert (recipe.steps, recipe.milestones, recipe.lr, recipe.weight_decay) == (32_000, (0.5, 0.75), 0.1, 1e-4)
    assert Recipe.named("he2015", epochs=3).total_steps(391) == 3 * 391  # what the user says last counts
    assert Recipe.named("minutes5").model_options["width1"] == 32
    assert Recipe.named("minutes5", model="resnet20").model_options == {}
    with pytest.raises(
        ConfigError, match=r"'he2016' \(did you mean he2015\?\): there are evening, he2015, hour1, long"
    ):
        Recipe.named("he2016")
    with pytest.raises(ConfigError, match="unknown setting 'epoch'"):
        Recipe.named("he2015", epoch=3)
    with pytest.raises(ConfigError, match=r"model must be a text, not \[1\]"):
        Recipe.named("he2015", model=[1])


def test_settings_win_over_the_recipe_of_the_dataset():
    recipe = Recipe.for_dataset("cifar10", epochs=3, model="plain20")
    assert (recipe.epochs, recipe.model, recipe.dataset) == (3, "plain20", "cifar10")


def test_a_new_schedule_brings_its_warmup():
    recipe = Recipe(schedule="one-cycle", warmup=0.25)
    assert recipe.with_settings(schedule="one-cycle").warmup == 0.25
    for name, warmup in SCHEDULES.items():
        if name != "one-cycle":
            assert recipe.with_settings(schedule=name).warmup == warmup
            assert recipe.with_settings(schedule=name, warmup=0.1).warmup == 0.1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": -1}, "epochs must be a whole number from 1 up, not -1"),
        ({"epochs": 0}, "not 0"),
        ({"epochs": 2.5}, "not 2.5"),
        ({"epochs": True}, "not True"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 up"),
        ({"threads": 0}, "threads"),
        ({"val": -5}, "val must be a whole number from 0 up, or a fraction below 1, not -5"),
        ({"seed": -1}, "seed"),
        ({"lr": 0.0}, "lr must be a number above 0, not 0.0"),
        ({"lr": float("nan")}, "not nan"),
        ({"lr": "fast"}, "'fast'"),
        ({"momentum": 1.0}, "momentum must be a number from 0 up and below 1, not 1.0"),
        ({"momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"warmup": -0.1}, "warmup"),
        ({"schedule": "onecycle"}, "did you mean one-cycle?"),
        ({"milestones": [0.75, 0.5]}, "milestones"),
        ({"milestones": (0.5, 1.0)}, "milestones"),
        ({"milestones": (0.5, 200)}, "or whole numbers of steps, not [0.5, 200]"),
        ({"milestones": (1.5, 200)}, "or whole numbers of steps, not [1.5, 200]"),
        ({"warmup": 1.5}, "warmup is a fraction of the run below 1 or a whole number of steps, not 1.5"),
        ({"steps": 0}, "steps must be a whole number from 1 up, not 0"),
        ({"error_warmup": 1.0}, "error_warmup must be a number above 0 and below 1, not 1.0"),
        ({"milestones": 0.5}, "milestones must be a list, not 0.5"),
        ({"flip": "yes"}, "flip must be true or false, not 'yes'"),
        ({"model": 20}, "model must be a text, not 20"),
        ({"data_dir": 1}, "data_dir"),
        ({"crop": -1}, "crop"),
        ({"weights": 1}, "weights must be a text, not 1"),
        ({"weights": "a\0b"}, "weights must be a text that UTF-8 can hold, without a NUL"),
        ({"weights_sha256": "0" * 63 + "g"}, "weights_sha256 has 64 hexadecimal digits, unlike '000"),
        ({"num_classes": 0}, "num_classes must be a whole number from 1 up, not 0"),
        ({"num_classes": "2"}, "num_classes must be a whole number from 1 up, not '2'"),
        ({"freeze": "stem"}, "freeze must be a list, not 'stem'"),
        ({"freeze": ["stem", 1]}, 'freeze is a list of names of parts, such as ["stem", "layer1"], not [\'stem\', 1]'),
        ({"freeze": ["\udce9"]}, "freeze must be a text that UTF-8 can hold"),
        ({"epochs": 10**400}, "epochs must be at most 2147483647, not 1000"),
        (
            {"seed": 1 << 100_000},
            "seed must be at most 9223372036854775807, not an int of more digits than Python prints",
        ),
        ({"epochs": -(1 << 100_000)}, "from 1 up, not an int of more digits"),
        ({"crop": 10**20}, "crop must be at most 2147483647"),
        ({"lr": 10**400}, "lr must be a number above 0, not 1000"),
        ({"weight_decay": float("inf")}, "not inf"),
        ({"milestones": [10**400]}, "milestones are rising parts"),
        ({"milestones": [[1 << 100_000]]}, "not a list with an int of more digits than Python prints"),
        ({"flip": "yes" * 1000}, "yesyes …"),
        ({"data_dir": "caf\udce9"}, "data_dir must be a text that UTF-8 can hold, without a NUL, not 'caf\\udce9'"),
        ({"data_dir": "a\0b"}, r"not 'a\x00b'"),
        ({"model": "\udce9"}, "model must be a text that UTF-8 can hold"),
        (
            {"model_options": {"option": [[]]}},
            "the model option 'option' must be a text, a number below 2^31 or true or",
        ),
        (
            {"model_options": {"option": None}},
            "not None: networks without shortcuts have names of their own, such as plain20",
        ),
        (
            {"model_options": {"width": None}},
            "the model option 'width' must be a text, a number below 2^31 or true or false",
        ),
        ({"schedule": [1]}, "schedule must be a text, not [1]"),
        ({"model_options": {"num_classes": 10**400}}, "the model option 'num_classes' must be"),
        ({"model_options": {"option": "\udce9"}}, "model_options must be a text that UTF-8 can hold"),
    ],
)
def test_values_that_cannot_work(settings, said):
    with pytest.raises(ConfigError) as caught:
        Recipe().with_settings(**settings)
    assert said in str(caught.value)


def test_other_weights_are_not_those_of_the_sum():
    recipe = Recipe(weights="/a.pth", weights_sha256="0f" * 32)
    assert recipe.with_settings(lr=0.2).weights_sha256 == "0f" * 32
    for path in ("/b.pth", "/a.pth"):  # which may have changed
        assert recipe.with_settings(weights=path).weights_sha256 is None
    assert recipe.with_settings(weights="/b.pth", weights_sha256="1a" * 32).weights_sha256 == "1a" * 32


def test_relative_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('data_dir = "data"\nweights = "../a.pth"\n')
    recipe = Recipe.from_file(path)
    assert (recipe.data_dir, recipe.weights) == (str(tmp_path / "data"), str(tmp_path / "../a.pth"))
    path.write_text('weights = "/elsewhere/a.pth"\n')
    assert Recipe.from_file(path).weights == "/elsewhere/a.pth"


def test_an_unknown_setting_is_named_with_its_neighbours(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown setting 'epoch' \(did you mean epochs"):
        Recipe.for_dataset("shapes", epoch=3)
    with pytest.raises(ConfigError, match=r"'weightdecay' in my.toml \(did you mean weight_decay"):
        Recipe.parse("weightdecay = 0.1", "my.toml")


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"my.toml is not valid TOML: .*line 1"):
        Recipe.parse("epochs = = 3", "my.toml")
    with pytest.raises(ConfigError, match=r"my.toml: epochs must be"):
        Recipe.parse("epochs = 0", "my.toml")
    with pytest.raises(
        ConfigError, match=r"cannot read .*nowhere.toml \(No such file or directory\): a recipe is a TOML file"
    ):
        Recipe.read(tmp_path / "nowhere.toml")


def test_every_setting_is_written():
    optional = {"data_dir": "x", "threads": 1, "steps": 9, "error_warmup": 0.1, "image_size": 64, "cache": "x"}
    optional |= {"weights": "x", "weights_sha256": "0" * 64, "num_classes": 2}
    written = Recipe(**optional, model_options={"option": "B"}, lr_factors={"head": 2.0}).to_toml("0.1.0")
    for name in asdict(Recipe()):
        assert f"{name} = " in written or f"[{name}]" in written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 100_000, "nested too deep"),
        ("x = " + "{a=" * 100_000, "nested too deep"),
        ("model_options.x = " + "[" * 90 + "]" * 90, "the model option 'x' must be"),
        ("lr = " + "1" * 5000, "is not valid TOML"),
        ("lr = 0x" + "f" * 5000, "lr must be a number above 0, not an int of more digits than Python prints"),
        ("epochs = 1" + "0" * 400, "epochs must be at most 2147483647"),
        ("dataset = '" + "a" * 100_000 + "'", "unknown data set 'aaa"),
        ("dataset = '../recipes/shapes'", "unknown data set '../recipes/shapes'"),
        ("dataset = [1]", "unknown data set [1]"),
        ('data_dir = "a\\u0000"', "data_dir must be a text"),
        ("'" + "a" * 100_000 + "' = 1", "unknown setting 'aaa"),
        ("epochs = nan", "not nan"),
        ("lr = 1e400", "not inf"),
        ("lr = 1979-05-27", "lr must be a number"),
    ],
    ids=lambda text: text[:30],
)
def test_hostile_texts(tmp_path, text, said):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Recipe.from_file(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_byte_order_mark_and_text_that_is_not_utf_8(tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbfepochs = 7")
    assert Recipe.from_file(path).epochs == 7
    for content in (b"\xff\xfee\x00", b"# caf\xe9", b"# \xed\xb3\xa9"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not UTF-8 text"):
            Recipe.from_file(path)


def test_a_home_that_does_not_exist(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("data_dir = '~nobody-of-this-name/x'")
    assert Recipe.from_file(path).data_dir == str(tmp_path / "~nobody-of-this-name/x")
