"""Reads docs/errors.md, with whose rows the tests compare messages."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"


@dataclass(frozen=True)
class Row:
    """what: a command or a line of Python, if it is in backticks. says: None, or the message, with … for any text."""

    what: str
    says: str | None
    ends: str
    test: str

    @property
    def pattern(self):
        """A regular expression for the message as it is printed, or as it is in an exception."""
        return rf"(error: |warning: )?{'.*'.join(map(re.escape, self.says.split('…')))}\n?"


def _plain(cell):
    """The text in single or double backticks; None if they do not enclose the whole cell."""
    found = re.fullmatch(r"(`+) ?(.*?) ?\1", cell)
    return found[2] if found and found[1] not in found[2] else None


@cache
def rows():
    """All rows of all tables on the page."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        cells = line.strip("|").split(" | ")
        if "::test" in line and line.startswith("|") and len(cells) == 4:
            what, says, ends, test = (cell.strip() for cell in cells)
            found.append(Row(what, _plain(says), ends, test))
    return found


def commands():
    return [row for row in rows() if row.test.endswith("::test_command")]


def calls():
    return [row for row in rows() if row.test.endswith("::test_call")]


def others():
    """The rows that need a test of their own."""
    return [row for row in rows() if row not in commands() + calls()]


def compare(nodeid, message):
    """Assert that ``message`` is what the page has for this test, or for the test with any parameters."""
    name = nodeid.partition("[")[0]
    mine = [row for row in rows() if row.test == nodeid] or [row for row in rows() if row.test == name]
    assert mine or any(row.test.startswith(f"{name}[") for row in rows()), f"{PAGE.name} has no row with {nodeid}"
    for row in mine:
        assert re.fullmatch(row.pattern, message, re.DOTALL), f"{PAGE.name} says\n{row.says}\nand minires\n{message}"


def runnable(row):
    """The command or line of Python in the first cell of a row of ``commands`` or ``calls``."""
    return _plain(row.what)
