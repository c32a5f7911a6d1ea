"""The names of classes: those of ImageNet, and those in a user's file."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import DataError, brief, plural
from ..files import expand_user

MAX_BYTES = 10_000_000


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in the order of the outputs of networks trained on it, as torchvision has them.

    >>> imagenet_classes()[281]
    'tabby'
    """
    lines = resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def read_class_names(path: Path | str) -> tuple[str, ...]:
    """The names of classes in a file, in their order: a text with one name a line, or JSON.

    JSON is a list of names; or an object of numbers and names, such as ``{"0": "cat", "1": "dog"}`` or the other way round;
    Keras's ``imagenet_class_index.json`` has ``["n02123045", "tabby"]`` for a name. Raises DataError for a file that cannot
    be read, that is no such text, or whose numbers are not all there.
    """
    path = expand_user(path)
    try:
        if not path.is_file():
            raise DataError(f"{path} is no file" if path.exists() else f"there is no file {path}")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes, which are too many for the names of classes")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: names of classes are one a line, or JSON") from error
    if text.lstrip()[:1] in ("[", "{"):
        return _of_json(text, path)
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise DataError(f"{path} holds no names of classes")
    return names


def class_names(count: int, path: Path | str | None = None, own: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The names of ``count`` classes: those in a file if one is given, else the network's own, else for 1,000 classes
    ImageNet's, else numbers. Raises DataError for a file with another number of names.

    >>> class_names(3)
    ('0', '1', '2')
    """
    if path is not None:
        names = read_class_names(path)
        if len(names) != count:
            classes = "1 class" if count == 1 else f"{count:,} classes"
            raise DataError(f"{path} has {plural(len(names), 'name')}, and the network tells {classes} apart")
        return names
    if own is not None and len(own) == count:
        return own
    return imagenet_classes() if count == 1000 else tuple(map(str, range(count)))


def _of_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} begins like JSON, and is none: {error}") from error
    if isinstance(found, dict):
        if all(isinstance(value, int) for value in found.values()):
            found = {value: name for name, value in found.items()}
        by_number = {str(number): name for number, name in found.items()}
        missing = next((number for number in range(len(by_number)) if str(number) not in by_number), None)
        if missing is not None:
            raise DataError(
                f"{path} has {len(by_number):,} entries, and none for class {missing}: classes are numbered from 0"
            )
        found = [by_number[str(number)] for number in range(len(by_number))]
    names = tuple(_name(entry) for entry in found)
    if not names or None in names:
        wrong = brief(found[names.index(None)]) if names else "nothing"
        raise DataError(f"{path} has {wrong} in the place of a class's name")
    return tuple(name for name in names if name is not None)


def _name(entry: Any) -> str | None:
    if isinstance(entry, list) and entry and all(isinstance(part, str) for part in entry):
        entry = entry[-1]
    return entry.strip() or None if isinstance(entry, str) else None
