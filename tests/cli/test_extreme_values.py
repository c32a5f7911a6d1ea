"""Values that no one means: each is answered in a sentence, none with a traceback."""

import os

import pytest

DIGITS = "1" + "0" * 400


@pytest.mark.parametrize(
    "option", ["epochs", "batch-size", "crop", "cutout", "val", "seed", "threads", "lr", "gamma", "weight-decay"]
)
@pytest.mark.parametrize(
    "value", [DIGITS, f"-{DIGITS}", "9" * 5000, "1e20", "1e400", "nan"], ids=lambda value: value[:6]
)
def test_numbers_for_train(minires, option, value):
    if value == "1e20" and option in ("lr", "gamma", "weight-decay"):
        value = "-1e20"  # 1e20 is a number that a float holds
    code, out, err = minires("train", "--epochs", 1, f"--{option}", value)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["gradcheck", "--model", "resnet8", "--batch-size", DIGITS],
        ["gradcheck", "--model", "resnet8", "--image-size", DIGITS],
        ["gradcheck", "--model", "resnet8", "--image-size", "9" * 5000],
        ["gradcheck", "--model", "resnet8", "--directions", DIGITS],
        ["gradcheck", "relu", "--seed", f"-{DIGITS}"],
        ["replay", ".", "--steps", f"-{DIGITS}"],
        ["replay", ".", "--threads", DIGITS],
        ["eval", ".", "--threads", DIGITS],
        ["eval", "caf\udce9"],
        ["replay", "caf\udce9"],
        ["train", "--recipe", "caf\udce9"],
        ["train", "--model", "caf\udce9"],
        ["train", "--data-dir", "caf\udce9"],
        ["train", "--data-dir", "~nobody-of-this-name/data"],
        ["train", "--model-option", "option=\udce9"],
        ["train", "--model-option", "num_classes=" + DIGITS],
        ["train", "--model-option", "num_classes=-1"],
        ["gradcheck", "\udce9"],
        ["gradcheck", "relu", "--backend", "\udce9"],
        ["\udce9"],
        ["eval", "a" * 5000],
        ["replay", "a" * 5000],
        ["train", "--recipe", "a" * 5000],
    ],
    ids=lambda words: " ".join(words)[:50].encode("ascii", "replace").decode(),
)
def test_other_commands(minires, words):
    code, out, err = minires(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_run_in_a_folder_whose_name_is_not_utf_8(minires, small_run):
    folder = os.fsdecode(b"caf\xe9")
    code, _, err = minires(*small_run, "--epochs", 1, "--out", folder)
    assert (code, err) == (0, "")
    for words in (["eval", folder], ["train", "--resume", folder]):
        code, out, err = minires(*words)
        assert (code, err) == (0, "")
        assert out
    code, _, err = minires("eval", folder, "--data-dir", folder)
    assert code == 2
    assert err == "error: data_dir must be a text that UTF-8 can hold, without a NUL, not " + err.partition("not ")[2]
