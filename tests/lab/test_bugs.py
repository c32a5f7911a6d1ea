"""The experiment bugs on a tiny network: what it measures, its verdict's rule, mysteries, and bad input."""

import json
import math

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import lab
from minires.errors import ConfigError, DataError
from minires.lab.catalogue import EXPERIMENTS, read, run
from minires.lab.experiments.bugs import BACKWARD, QUICK
from minires.lab.experiments.bugs.experiment import grade
from minires.lab.setting import Setting, deeper

RNG = np.random.default_rng(0)
BATCH = RNG.standard_normal((32, 3, 8, 8)), np.arange(32) % 10
TRAINING = lab.Training(steps=6, batch_size=16, seed=1)
NAMES = ["skip-dropped", "relu-mask-of-branch", "depth-from-global", "bias-gradient-averaged", "skip-added-twice"]


def network(name="resnet8"):
    mr.manual_seed(0)
    return mr.models.create(name, width=4)


@pytest.fixture(scope="module")
def found():
    model, second = network("preresnet8"), network("preresnet14")
    before = {k: v.copy() for k, v in model.state_dict().items()}
    state = mr.random.get_rng_state()
    model.eval()
    result = lab.bugs(model, BATCH, NAMES, second, TRAINING)
    assert not model.training
    assert all((v == before[k]).all() for k, v in model.state_dict().items())
    assert all(p.grad is None and p.dtype == np.float32 for p in model.parameters())
    assert str(mr.random.get_rng_state()) == str(state)
    return result


def test_what_gradcheck_finds(found):
    assert found.names == NAMES
    assert found.gradcheck == ["found", "no effect", "second depth", "found", "passed"]
    assert found.kinds == ["backward"] * 4 + ["both passes"]
    assert "residual_add" in found.location[0]
    assert "linear" in found.location[3]
    np.testing.assert_array_equal(found.forward[:4], 0)
    assert found.forward[4] > 1e-3
    np.testing.assert_allclose(found.cosine[1:3], 1)
    assert found.cosine[0] < 0.99
    assert 0.9 < found.cosine[3] < 1 - 1e-9


def test_the_cosine_of_the_gradients(found):
    model, (images, labels) = network("preresnet8").double(), (BATCH[0][:4], BATCH[1][:4])

    def gradient():
        model.zero_grad()
        F.cross_entropy(model(mr.tensor(images)), labels).backward()
        return np.concatenate([p.grad.reshape(-1) for p in model.parameters()])

    right = gradient()
    with lab.inject("skip-dropped"):
        wrong = gradient()
    cosine = wrong @ right / np.linalg.norm(wrong) / np.linalg.norm(right)
    assert math.isclose(found.cosine[0], cosine, rel_tol=1e-9)


def test_training_is_that_of_a_loop_written_out(found):
    for name, losses in (("skip-dropped", found.loss[0]), (None, found.right_loss)):
        model, rng, order = network("preresnet8").train(), np.random.default_rng(1), []
        velocity = dict.fromkeys(model.parameters(), 0)
        right = []
        for step in range(6):
            order = order if len(order) else list(rng.permutation(32))
            chosen, order = order[:16], order[16:]
            y = model(mr.tensor(BATCH[0][chosen].astype(np.float32)))
            loss = F.cross_entropy(y, BATCH[1][chosen])
            assert math.isclose(loss.item(), losses[step], rel_tol=1e-3)
            right.append((y.numpy().argmax(1) == BATCH[1][chosen]).mean())
            model.zero_grad()
            if name is None:
                loss.backward()
            else:
                with lab.inject(name):
                    loss.backward()
            for p in model.parameters():
                velocity[p] = 0.9 * velocity[p] + p.grad
                p.data = (p.data - 0.025 * (1 + math.cos(math.pi * step / 6)) * velocity[p]).astype(np.float32)
        accuracy = found.right_accuracy if name is None else found.accuracy[0]
        assert abs(accuracy - np.mean(right[-2:])) < 0.07  # an epoch is two steps; rounding may turn an image or two
    np.testing.assert_array_equal(found.loss[1], found.right_loss)  # it has no effect here
    assert found.chance == 4 / 32


def test_a_loss_that_is_not_finite_ends_the_training():
    result = lab.bugs(network(), BATCH, ["pool-mean-missing"], training=TRAINING._replace(lr=1e30))
    assert result.accuracy[0] == 0
    assert np.isfinite(result.loss[0, 0])
    assert np.isnan(result.loss[0, -1])
    assert json.loads(result.to_json())["loss"][0][-1] is None


# --- verdict


def result_with(accuracy, gradcheck=None, right=0.5, kinds=None, grade=""):
    n = len(accuracy)
    return lab.Bugs(
        settings={},
        names=[f"m{i}" for i in range(n)],
        kinds=kinds or ["backward"] * n,
        fused=["fused"] * n,
        forward=np.zeros(n),
        cosine=np.ones(n),
        gradcheck=gradcheck or ["found"] * n,
        location=["there"] * n,
        second="",
        loss=np.ones((n, 20)),
        accuracy=np.array(accuracy, float),
        right_loss=np.ones(20),
        right_accuracy=right,
        chance=0.1,
        answer="",
        grade=grade,
    )


def test_the_verdict_follows_its_rule():
    assert list(result_with([0.31, 0.29]).trains) == [True, False]  # half way from 0.1 to 0.5 is 0.3
    assert result_with([0.4, 0.1]).verdict.word == "seen"
    assert result_with([0.4, 0.1, 0.1]).verdict.word == "unclear"
    assert result_with([0.4] + [0.1] * 9).verdict.word == "unclear"
    assert result_with([0.4] + [0.1] * 10).verdict.word == "not seen"
    assert result_with([0.1]).verdict.word == "not seen"
    assert result_with([0.4, 0.4], right=0.19).verdict.word == "unclear"
    # a gradient that is right here says nothing
    assert result_with([0.4, 0.4, 0.1], ["no effect", "second depth", "found"]).verdict.word == "not seen"
    assert result_with([0.4], ["no effect"]).verdict.word == "unclear"


def test_the_verdict_says_what_was_found():
    kinds = ["backward"] * 3 + ["both passes"]
    because = result_with([0.4] * 4, ["found", "second depth", "passed", "passed"], kinds=kinds).verdict.because
    assert because == (
        "3 of 3 networks with a mistake train; gradcheck finds 2 of 3 mistakes in the backward pass, and cannot find 1 in "
        "both passes"
    )
    assert result_with([0.4], grade="right").verdict.because == (
        "right; 1 of 1 networks with a mistake train; gradcheck finds 1 of 1 mistakes in the backward pass; there"
    )


def test_json_and_pictures(found, tmp_path):
    again = lab.Bugs.from_json(found.to_json())
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert read(found.to_json()).to_json() == found.to_json()
    for result in (found, result_with([0.4])):
        for name in ("picture.png", "picture.svg"):
            result.plot(tmp_path / name)
            assert (tmp_path / name).stat().st_size > 5000
        heads, rows = result.rows()
        assert {len(row) for row in rows} == {len(heads)}
    assert [row[0] for row in found.rows()[1]] == ["none", *NAMES[:4], "skip-added-twice *"]


# --- mysteries


def mystery(seed, answer=None, model="resnet8"):
    training = lab.Training(steps=1, batch_size=4)
    return lab.bugs(network(model), BATCH, None, None, training, mystery=seed, answer=answer)


def test_a_mystery_names_nothing():
    result = mystery(3)
    assert result.names == ["mystery 3"]
    assert result.gradcheck == ["found"]
    assert result.grade == ""
    assert not any(m.name in result.to_json() or m.summary in result.to_json() for m in BACKWARD)
    order = [BACKWARD[i] for i in np.random.default_rng(3).permutation(len(BACKWARD))]
    hidden = next(m for m in order if m.name != "depth-from-global")  # which is right in a ResNet-8
    right, wrong = mystery(3, hidden.name), mystery(3, "skip-added-twice")
    assert right.grade.startswith(f"your answer {hidden.name!r} is right: {hidden.summary}. ")
    assert right.verdict.because.startswith(right.grade)
    assert "wrong: gradcheck could not find it" in wrong.grade
    assert hidden.name not in wrong.to_json()
    np.testing.assert_array_equal(right.loss, result.loss)


def test_mysteries_affect_the_network():
    for seed in range(40):
        first = BACKWARD[np.random.default_rng(seed).permutation(len(BACKWARD))[0]].name
        if first in ("relu-mask-of-branch", "depth-from-global"):  # not in a pre-activation ResNet-8
            assert mystery(seed, model="preresnet8").gradcheck == ["found"]
            break
    else:
        pytest.fail("no such seed")


def test_grades():
    mean, variance = lab.MISTAKES["norm-mean-dropped"], lab.MISTAKES["norm-variance-dropped"]
    skip = lab.MISTAKES["skip-dropped"]
    assert "is right: dx without the term of the mean" in grade(mean, mean)
    assert grade(mean, variance) == "your answer 'norm-variance-dropped' is wrong, but the place (batch norm) is right"
    assert grade(mean, skip) == "your answer 'skip-dropped' is wrong: look elsewhere than at: addition"


# --- the command line's part


def test_quick_takes_the_named_ones():
    assert set(QUICK) <= set(lab.MISTAKES)
    assert {"depth-from-global", "x-added-to-x"} <= set(QUICK)


def test_by_name():
    setting = Setting(model="resnet8", width=2, image_size=8, quick=True)
    result = run("bugs", setting, inject="skip-doubled")
    assert result.names == ["skip-doubled"]
    assert result.second == "resnet14"
    assert result.settings["inject"] == "skip-doubled"
    assert len(result.right_loss) == 20 * 64 // 32
    assert result.settings["width"] == 2
    assert EXPERIMENTS["bugs"].defaults == {"model": "resnet8"}
    assert (EXPERIMENTS["bugs"].size, EXPERIMENTS["bugs"].quick_size) == ((8, 16), (8, 8))


def test_deeper():
    assert deeper(Setting(model="resnet8", width=4)) == Setting(model="resnet14", width=4)
    assert deeper(Setting(model="preplain20")).model == "preplain32"
    assert deeper(Setting(model="resnet1202")) is None
    assert deeper(Setting(model="crossing")) is None
    assert deeper(Setting(model="resnet8", run="somewhere")) is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"names": ["nope"]}, ConfigError, "unknown mistake 'nope': choose one of fan-out-overwritten, "),
        ({"names": []}, ConfigError, "names is empty"),
        ({"names": ["skip-dropped"], "mystery": 1}, ConfigError, "a mystery chooses the mistake itself"),
        ({"mystery": -1}, ConfigError, "mystery is a seed, a whole number from 0, not -1"),
        ({"answer": "skip-dropped"}, ConfigError, "an answer is graded where a mistake is hidden"),
        ({"answer": "skip", "mystery": 1}, ConfigError, "unknown mistake 'skip'"),
        ({"training": lab.Training(steps=0)}, ConfigError, "training takes one step at least, of two images at least"),
        ({"training": lab.Training(batch_size=33)}, DataError, "32 images with 32 labels to train on; .* 33 at least"),
        ({"batch": (BATCH[0], BATCH[1][:8])}, DataError, "32 images with 8 labels"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        lab.bugs(network(), **{"batch": BATCH, **given})
