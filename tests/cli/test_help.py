"""`--help` teaches: every command, as it stands in the tree of commands, with examples and a word on every option."""

import json
import re
import subprocess
import sys

import pytest
from typer.main import get_command

from minires.cli import app
from minires.cli.paths import DOWNLOADS
from minires.data.cifar.files import default_folder
from minires.lab.catalogue import EXPERIMENTS


def walk(command, path=()):
    """(words, command) of a command and of all below it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(get_command(app)))


def text(command):
    """What the docstring of a command says, or the help of a group."""
    return command.help or ""


def test_they_are_all_there():
    assert {" ".join(words) for words in COMMANDS} == {
        *("", "train", "sweep", "compare", "eval", "predict", "export", "replay", "gradcheck", "doctor", "warmup"),
        *("cache", "cache info", "cache clear"),
        *("data", "data download", "data info", "data verify", "data show"),
        *(
            "explain",
            "lab",
            "lab all",
            "lab train",
            "lab cam",
            "lab features",
            "lab filters",
            *(f"lab {name}" for name in EXPERIMENTS),
        ),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_has_examples(minires, words):
    code, out, err = minires(*words, "--help")
    assert (code, err) == (0, "")
    line = " ".join(("minires", *words))
    examples = re.findall(rf"`([A-Z_=/a-z0-9 ]*{line}[^`]*)`", text(COMMANDS[words]))
    assert len(examples) >= 2, f"{line} --help has {examples}"
    shown = " ".join(out.split())
    assert all(" ".join(example.split()) in shown for example in examples)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_examples_are_command_lines_that_there_are(words):
    """Each option in an example is one of its command, and each command of the tree."""
    for example in re.findall(r"`(?:\w+=\S+ )?minires ([^`]*)`", text(COMMANDS[words])):
        parts = example.split()
        path = max((p for p in COMMANDS if tuple(parts[: len(p)]) == p), key=len)
        assert path, example
        known = {name for param in COMMANDS[path].params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        assert {part for part in parts if part.startswith("-")} <= known, example


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_and_argument_is_explained(words):
    for param in COMMANDS[words].params:
        if not getattr(param, "hidden", False):
            assert getattr(param, "help", None), f"{' '.join(words)}: {param.name}"
            assert param.help.endswith((".", ")")), f"{param.name}: {param.help}"


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words not in ((), ("cache",), ("data",), ("lab",))], ids=" ".join
)
def test_every_command_has_debug(words):
    assert "--debug" in {name for param in COMMANDS[words].params for name in param.opts}


def test_help_does_not_come_from_docstrings():
    """They are gone under ``python -OO``."""
    code = "import json; from typer.main import get_command; from minires.cli import app\n"
    code += "def walk(c): return [c.help, *(walk(i) for i in getattr(c, 'commands', {}).values())]\n"
    code += "print(json.dumps(walk(get_command(app))))"
    found = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)

    def texts(command):
        return [command.help, *(texts(inner) for inner in getattr(command, "commands", {}).values())]

    assert json.loads(found.stdout) == texts(get_command(app))


def test_the_place_of_downloads_is_named(minires):
    found = 0
    for words, command in COMMANDS.items():
        for param in command.params:
            if param.name == "data_dir":
                assert DOWNLOADS in param.help, words
                found += 1
    assert found == 11 + sum("data_dir" not in e.unused for e in EXPERIMENTS.values())
    assert str(default_folder()).endswith(DOWNLOADS.removeprefix("~"))
