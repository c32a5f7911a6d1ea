"""MkDocs hook: the pages that have no file in docs/, and the links that lead out of it.

- README, CONTRIBUTING, CHANGELOG and examples/README become pages (PAGES)
- every public package gets a page of the reference (PACKAGES)
- a link to any other file or folder of the repository leads to a page that shows it, below source/
- mkdocstrings reads the sources as they are installed, with kernels/ as minires.kernels
"""

import ast
import posixpath
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "index.md": "README.md",
    "examples.md": "examples/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def reference_kernels():
    """The modules of minires.kernels.reference: its __init__.py only gathers them."""
    names = sorted(file.stem for file in (ROOT / "kernels" / "reference").glob("[!_]*.py"))
    return [f"minires.kernels.reference.{name}" for name in names]


PACKAGES = {  # page → what is on it; a function that has the name of its module has to be named
    "minires": ["minires", "minires.creation.tensor", "minires.tensor.Op", "minires.errors"],
    "minires.nn": ["minires.nn", "minires.nn.init"],
    "minires.functional": ["minires.functional"],
    "minires.optim": ["minires.optim"],
    "minires.models": ["minires.models"],
    "minires.data": ["minires.data"],
    "minires.gradcheck": ["minires.gradcheck"],
    "minires.interop": ["minires.interop"],
    "minires.lab": ["minires.lab", "minires.lab.explain", "minires.lab.setting", "minires.lab.networks"],
    "minires.training": ["minires.training", "minires.training.replay.replay"],
    "minires.kernels": ["minires.kernels", "minires.kernels.reference", *reference_kernels()],
}
PICTURES = (".png", ".svg")
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".json": "json",
    ".jsonl": "json",
    ".md": "markdown",
    ".cfg": "ini",
    "": "text",
}

LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")  # target and anchor of [text](target#anchor)
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

installed = tempfile.TemporaryDirectory(prefix="minires-docs-")


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config):
    """Lay out the sources as they are installed, for mkdocstrings."""
    minires = Path(installed.name, "minires")
    for source, target in (ROOT / "minires", minires), (ROOT / "kernels", minires / "kernels"):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for file in minires.rglob("__init__.py"):  # __all__ may have names that are made at run time: *MODELS
        file.write_text(
            re.sub(r"^ +\*[A-Z]+,\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8"
        )
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [installed.name]


def on_files(files, config):
    """Add the pages that have no file in docs/."""
    pages = {page: (ROOT / path).read_text(encoding="utf-8") for page, path in PAGES.items()}
    for package, modules in PACKAGES.items():
        first, *others = modules
        below = "\n    options: { heading_level: 2, show_root_toc_entry: true }"
        pages[f"reference/{package}.md"] = "\n\n".join([f"::: {first}", *(f"::: {other}{below}" for other in others)])

    waiting = [*PAGES.values(), *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:  # what a page links to is shown, and so is what that links to
        path = waiting.pop()
        if page_of(path).startswith("source/") and path.endswith(PICTURES):
            files.append(File.generated(config, page_of(path), abs_src_path=str(ROOT / path)))
        elif page_of(path).startswith("source/"):
            pages[page_of(path)] = show(path)
        targets = set(linked(path)) - seen
        waiting += targets
        seen |= targets

    for page, text in pages.items():
        in_nav = InclusionLevel.NOT_IN_NAV if page.startswith("source/") else InclusionLevel.UNDEFINED
        files.append(File.generated(config, page, content=text, inclusion=in_nav))
    return files


def on_page_markdown(markdown, page, **kwargs):
    """Links as they work in the repository become links as they work in the site."""
    here = page.file.src_uri
    path = PAGES.get(here, f"docs/{here}")
    if here.startswith(("source/", "reference/")):
        return markdown

    def rewritten(found):
        target = resolve(path, found[1])
        if target is None:
            return found[0]
        there = page_of(target)
        anchor = "" if there.startswith("source/") else found[2] or ""  # no #L10 there
        return posixpath.relpath(there, posixpath.dirname(here)) + anchor

    parts = FENCED.split(markdown)  # text, code, text, …
    return "".join(part if i % 2 else LINK.sub(rewritten, part) for i, part in enumerate(parts))


def resolve(path, link):
    """The file or folder of the repository that ``link`` in the file ``path`` leads to, or None."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    inside = "://" not in link and not target.startswith("..") and (ROOT / target).exists()
    return target if inside and showable(ROOT / target) else None


def page_of(path):
    """The page of the site that shows this file or folder of the repository."""
    for page, shown in PAGES.items():
        if path == shown:
            return page
    if path.startswith("docs/") and (ROOT / path).is_file() and not path.endswith(".py"):
        return path.removeprefix("docs/")
    if path.endswith(PICTURES):
        return f"source/{path}"
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def linked(path):
    """The files and folders of the repository that a page links to."""
    if (ROOT / path).is_dir():
        return [f"{path}/{file.name}" for file in listed(path)]
    if not path.endswith(".md"):
        return []
    text = FENCED.sub("", (ROOT / path).read_text(encoding="utf-8"))
    return [target for link, _ in LINK.findall(text) if (target := resolve(path, link))]


def listed(folder):
    """What is in a folder and can be shown."""
    return [
        path for path in sorted((ROOT / folder).iterdir()) if showable(path) and not path.name.startswith((".", "__p"))
    ]


def showable(path):
    return path.is_dir() or path.suffix in (*LANGUAGES, *PICTURES)


def show(path):
    """A page with the text of a file, or with the list of what is in a folder."""
    title = f"---\nsearch: {{ exclude: true }}\nhide: [navigation, toc]\n---\n\n# `{path}`\n\n"
    if not (ROOT / path).is_dir():
        language = LANGUAGES.get((ROOT / path).suffix, "text")
        return f'{title}````````{language} linenums="1"\n{(ROOT / path).read_text(encoding="utf-8")}\n````````\n'
    lines = []
    for file in listed(path):
        target = posixpath.relpath(page_of(f"{path}/{file.name}"), f"source/{path}")
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.suffix == ".py" else None
        lines.append(f"- [`{file.name}`]({target})" + (f": {about.splitlines()[0]}" if about else ""))
    return title + "\n".join(lines)
