"""Griffe extension: docstrings, which are written to be read in an editor, as Markdown that says the same.

- a doctest is a block of code
- "name: what it is" at the start of a line, name being a parameter or an attribute, is an item of a list
- two columns are a list as well; more of them stay as they are laid out
- what Markdown would take for its own (*args, [1], a_b_c) is itself

All else is prose already, and ``code`` in double backticks is code in Markdown too.
"""

import re

import griffe

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
COLUMNS = re.compile(r"(\S.*?) {2,}(\S.*)")
NAMED = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): ")  # stride, padding: …


class DocstringsAsWritten(griffe.Extension):
    """The extension: mkdocs.yml names this file."""

    def on_package(self, *, pkg, **kwargs):
        rewrite(pkg)


def rewrite(thing):
    """Rewrite the docstrings of a module, class or function and of all in it."""
    if thing.docstring:
        thing.docstring.value = markdown(thing.docstring.value, names_of(thing))
    for member in thing.members.values():
        if not member.is_alias:
            rewrite(member)


def names_of(thing):
    """Parameters of a function; attributes of a class, and the parameters of its __init__."""
    if thing.is_function:
        return {parameter.name for parameter in thing.parameters}
    if thing.is_class:
        init = thing.members.get("__init__")
        return {*thing.members, *(names_of(init) if init is not None and init.is_function else ())}
    return set()


def markdown(docstring, names=()):
    """The docstring as Markdown, paragraph by paragraph.

    >>> print(markdown("y = x*w + b*w\\n\\nx: an array.\\nw: a weight, or\\nseveral.\\nRaises ShapeError.", {"x", "w"}))
    y = x\\*w + b\\*w
    <BLANKLINE>
    - `x`: an array.
    - `w`: a weight, or
        several.
    <BLANKLINE>
    Raises ShapeError.
    """
    return "\n\n".join(paragraph(text.split("\n"), names) for text in re.split(r"\n\s*\n", docstring.strip("\n")))


def paragraph(lines, names):
    """One of them: its lines."""
    for i, line in enumerate(lines):
        if line.startswith(">>>"):  # to the end of the paragraph, as doctest has it
            return "\n".join([prose(lines[:i], names), "", "```pycon", *lines[i:], "```"]).lstrip("\n")
    if all(line.startswith("    ") for line in lines):
        return "\n".join(line.replace("``", "") for line in lines)  # code in Markdown as well
    if any(COLUMNS.match(line) for line in lines):
        return columns(lines)
    return prose(lines, names)


def columns(lines):
    """Lines with two columns or more.

    >>> print(columns(["shuffle    a new order", "drop_last  leave out the last,", "           smaller batch"]))
    - `shuffle`: a new order
    - `drop_last`: leave out the last,
        smaller batch
    """
    items = []
    for line in lines:
        found = COLUMNS.match(line)
        if "  " in (found[2] if found else line.strip()) or not (found or line.startswith("  ")):
            return "\n".join(["```text", *(line.replace("``", "") for line in lines), "```"])
        items.append(f"- `{found[1]}`: {escape(found[2])}" if found else f"    {escape(line.strip())}")
    return "\n".join(items)


def prose(lines, names):
    """Lines of text, some of which say what a parameter is."""
    written, in_list = [], False
    for line, escaped in zip(lines, escape("\n".join(lines)).split("\n")):
        found = NAMED.match(line)
        if found and names.issuperset(found[1].split(", ")):
            written += [""] * (not in_list) + [f"- `{found[1]}`: {escaped.partition(': ')[2]}"]
            in_list = True
        elif in_list and line.startswith("Raises "):
            written += ["", escaped]
            in_list = False
        else:
            written.append("    " * in_list + escaped.lstrip())
    return "\n".join(written).strip("\n")


def escape(text):
    """The text with a backslash before what Markdown would take for its own, outside of `code`."""
    parts = CODE.split(text)  # text, code, text, …
    return "".join(part if i % 2 else re.sub(r"([*_\[\]<>#|])", r"\\\1", part) for i, part in enumerate(parts))
