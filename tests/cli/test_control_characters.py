"""Texts from files and paths are shown as they are: terminals obey none of it, and rich interprets none."""

import io
import os
import sys
import unicodedata

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from minires import data
from minires.cli import display, errors
from minires.errors import DataError, ShapeError, printable
from minires.files import atomic_write

EVIL = "\x1b]0;title\x07\x1b[2Jx\r\x08\x9b3Jy\u202egpj\u2028z\u2066[red]:boom:"
SHOWN = r"\x1b]0;title\x07\x1b[2Jx\r\x08\x9b3Jy\u202egpj\u2028z\u2066[red]:boom:"


def is_control(character):
    """By Unicode's own properties."""
    directions = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in directions


def test_all_controls_are_escaped_and_little_else():
    more = {"\u061c", "\u200e", "\u200f"}  # marks of direction
    for character in map(chr, range(sys.maxunicode + 1)):
        shown = printable(character)
        if is_control(character) or character in more:
            assert shown.isascii()
            assert shown.isprintable()
            assert eval(f"'{shown}'") == character
        else:
            assert shown == character
    assert printable(f"a\n{EVIL}") == rf"a\n{SHOWN}"
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


def test_messages_in_python():
    assert str(DataError(f"{EVIL} is missing")) == f"{SHOWN} is missing"
    error = ShapeError(EVIL)
    error.path = EVIL
    assert str(error) == f"{SHOWN} (in {SHOWN})"
    with pytest.raises(DataError) as caught:
        data.load("cifar10", EVIL)
    assert str(caught.value).startswith(f"{SHOWN} does not exist")


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def out(request):
    return display._PlainConsole(file=io.StringIO(), force_terminal=request.param, width=200, legacy_windows=False)


def printed(out):
    """What was printed, without rich's own colours."""
    return Text.from_ansi(out.file.getvalue()).plain


def test_whatever_is_printed_on_the_console(out):
    table = Table(EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL, "red"))
    for item in (EVIL, Text(EVIL), table):
        out.print(item)
    text = printed(out)
    assert not any(is_control(character) for character in text if character != "\n")
    assert text.count(SHOWN) == 3  # rich itself drops some of them from a Text
    assert text.count("\\x1b]0;title") == 5


def test_the_descriptions_of_progress(out):
    with display.bar(out, EVIL, 3) as advance:
        advance(1, EVIL)
    with Progress(TextColumn("{task.description}", markup=False), console=out) as progress:
        progress.add_task(EVIL)
    assert "\\x1b]0;title" in printed(out)
    assert "\x1b]0;title" not in out.file.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_folders_and_files_with_such_names(minires, cifar, tmp_path):
    folder = tmp_path / f"{EVIL}\n{os.fsdecode(b'caf' + bytes([0xE9]))}"
    folder.mkdir()
    (folder / "cifar-10-batches-bin").symlink_to(cifar)
    shown = rf"{SHOWN}\ncaf\udce9"
    for command in ("info", "verify"):
        code, out, err = minires("data", command, "cifar10", "--data-dir", folder, *["--own"] * (command == "verify"))
        assert (code, err) == (0, "")
        assert shown in out
    code, out, _ = minires("data", "info", "--data-dir", folder)
    assert (code, shown in out) == (0, True)
    code, out, _ = minires("data", "show", "cifar10", "--data-dir", folder, "--images", 1, "--out", folder / EVIL)
    assert (code, f"{shown}/{SHOWN}" in out) == (0, True)
    (folder / "cifar-10-batches-bin").unlink()
    for command in (
        ["data", "verify", "cifar10", "--data-dir", folder],
        ["eval", folder],
        ["train", "--resume", folder],
    ):
        code, out, err = minires(*command)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert shown in err
        assert not any(is_control(character) for character in err.rstrip("\n"))


def test_an_error_of_the_system_that_names_such_a_file(tmp_path, capsys):
    def app(**_):
        with atomic_write(tmp_path / "nowhere" / EVIL):
            pass

    assert errors.run(app, ["x"]) == errors.FAILED
    assert capsys.readouterr().err == f"error: No such file or directory: {tmp_path}/nowhere/{SHOWN}\n"


def test_words_on_the_command_line(minires):
    for words in ([EVIL], ["train", f"--{EVIL}"], ["data", "info", EVIL], ["train", "--epochs", EVIL], ["eval", EVIL]):
        code, out, err = minires(*words)
        assert (code, out) == (2, "")
        assert not any(is_control(character) for character in err.rstrip("\n")), err
        assert "[red]:boom:" in err
