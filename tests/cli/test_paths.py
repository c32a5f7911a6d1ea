"""Commands to paste."""

import shlex
import subprocess

import pytest

from minires.cli import paths

WORDS = ("minires", "eval", "my runs/it's $HOME", "--data-dir", "x;y", "")


@pytest.mark.skipif(paths.os.name == "nt", reason="needs a POSIX shell")
def test_a_shell_reads_a_command_line_as_it_was_meant():
    line = paths.command_line(*WORDS)
    assert shlex.split(line) == list(WORDS)
    printed = subprocess.run(["sh", "-c", f"printf '%s|' {line}"], capture_output=True, text=True, check=True)
    assert printed.stdout.split("|")[:-1] == list(WORDS)
    assert paths.command_line("minires", "eval", "runs/resnet8-1") == "minires eval runs/resnet8-1"


def test_on_windows_the_rules_are_others(monkeypatch):
    monkeypatch.setattr(paths.os, "name", "nt")
    assert paths.command_line("minires", "eval", r"C:\my runs\1") == r'minires eval "C:\my runs\1"'
