"""The pages in docs/: their links, file names, line counts and examples are right, and so are the links of README."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKING = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
READING_ORDER = ROOT / "docs" / "reading-order.md"


def text(path):
    return path.read_text(encoding="utf-8")


def prose(path):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text(path), flags=re.M | re.S)


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), flags=re.M | re.S)


def code_spans(path):
    """What stands in backticks, in one line each."""
    return [" ".join(code.split()) for _, code in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose(path), re.S)]


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines(name):
    """The lines of a file, or of all Python files in a folder (``minires/ops/``) or of a pattern (``kernels/*.py``)."""
    paths = [*(ROOT / name).rglob("*.py")] if name.endswith("/") else [*ROOT.glob(name)]
    assert paths, f"{name} is in docs/reading-order.md, and does not exist"
    return sum(text(path).count("\n") for path in paths)


def counted():
    """{file or folder: lines} in the tables of docs/reading-order.md."""
    rows = re.findall(r"^\|(?: \d+ \|)? `([\w/.*]+)` \| ([\d,]+) \|", text(READING_ORDER), flags=re.M)
    return {name: int(number.replace(",", "")) for name, number in rows}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        to = page.parent / name if name else page
        assert to.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(to), f"{page.name} links to {target}: {to.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """`path/file.py`, and `path/file.py::test` with a test of that name."""
    for code in code_spans(page):
        named = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)*\.py)(?:::(\w+))?", code)
        if named is None:
            continue
        path, test = ROOT / named[1], named[2]
        assert path.is_file(), f"{page.name} names {code}"
        assert not test or f"def {test}(" in text(path), f"{page.name} names {code}"


def test_lines_of_the_reading_order():
    numbers = counted()
    assert len(numbers) > 40
    for name, number in numbers.items():
        assert abs(number - lines(name)) <= 0.15 * lines(name), f"{name} has {lines(name)} lines, not {number}"


def test_every_folder_is_in_the_reading_order():
    folders = [path.parent for top in ("minires", "kernels") for path in (ROOT / top).glob("*/__init__.py")]
    assert len(folders) > 10
    assert {f"{folder.relative_to(ROOT)}/" for folder in folders} <= counted().keys()


def test_sums_of_the_reading_order():
    total = sum(number for name, number in counted().items() if name.endswith(".py") and "*" not in name)
    everything = sum(number for name, number in counted().items() if not name.endswith(".py") or "*" in name)
    said = re.search(r"engine is ([\d,]+) lines.* have ([\d,]+) lines\.\sThe ([\d,]+) ", text(READING_ORDER), re.S)
    assert [int(number.replace(",", "")) for number in said.groups()] == [total, everything, everything - total]


def test_what_the_reading_order_has_of_each_folder():
    rows = re.findall(r"^\| `([\w/.*]+)` \| [\d,]+ \| ([\d,]+) \|", text(READING_ORDER), re.MULTILINE)
    assert len(rows) > 10
    files = {name: number for name, number in counted().items() if name.endswith(".py") and "*" not in name}
    for folder, read in rows:
        parent = folder.rstrip("/*.py")
        own = sum(number for name, number in files.items() if str(Path(name).parent) == parent)
        assert int(read.replace(",", "")) == own, folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page):
    """The blocks marked python are one script, those marked pycon one session."""
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), {"__name__": page.stem})
    session = doctest.DocTestParser().get_doctest("\n".join(blocks(page, "pycon")), {}, page.name, page.name, 0)
    assert doctest.DocTestRunner().run(session).failed == 0


def test_there_are_examples():
    """Else the test above could look for the wrong marks."""
    assert blocks(ROOT / "docs" / "winograd.md", "python")
    assert blocks(ROOT / "docs" / "fused-path.md", "python")
    assert blocks(READING_ORDER, "pycon")
