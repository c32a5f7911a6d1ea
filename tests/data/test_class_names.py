"""The names of classes: ImageNet's are torchvision's, and files of names are read or refused by name."""

import json

import pytest
import torch_peers

from minires.data import class_names, imagenet_classes, read_class_names
from minires.errors import DataError


def test_imagenets_are_torchvisions():
    from_torchvision = torch_peers.torchvision().models._meta._IMAGENET_CATEGORIES
    assert list(imagenet_classes()) == list(from_torchvision)


def test_imagenets_without_torchvision():
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
    assert all(name == name.strip() and name.isprintable() for name in names)


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\nsea lion",
        "\ufeffcat\r\n  dog\r\n\r\nsea lion\r\n\n",
        json.dumps(["cat", "dog", "sea lion"]),
        json.dumps({"0": "cat", "2": "sea lion", "1": "dog"}),
        json.dumps({"cat": 0, "sea lion": 2, "dog": 1}),
        json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "sea lion"]}),
        "\n " + json.dumps([["n1", "cat"], ["n2", "dog"], " sea lion "]),
    ],
    ids=["lines", "Windows", "list", "by number", "numbers by name", "Keras", "mixed"],
)
def test_files(content, tmp_path):
    (tmp_path / "names").write_bytes(content.encode())
    assert read_class_names(tmp_path / "names") == ("cat", "dog", "sea lion")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "names holds no names of classes"),
        (b"\n \n", "names holds no names of classes"),
        (b"caf\xe9", "names is not UTF-8 text"),
        (b"[1, 2]", "names has 1 in the place of a class's name"),
        (b'["a", ""]', "names has '' in the place of a class's name"),
        (b'["a", {"b": 1}]', r"names has \{'b': 1\} in the place"),
        (b"[]", "names has nothing in the place of a class's name"),
        (b"{}", "names has nothing in the place of a class's name"),
        (b'{"1": "a", "2": "b"}', "names has 2 entries, and none for class 0: classes are numbered from 0"),
        (b'{"a": 0, "b": 5}', "names has 2 entries, and none for class 1"),
        (b'{"a": true, "b": 5}', "none for class 0"),
        (b"[" * 200_000, "names begins like JSON, and is none"),
        (b"{names}", "names begins like JSON, and is none"),
        (b'["' + b"x" * 20_000_000, "names has 20,000,002 bytes, which are too many"),
    ],
    ids=range(14),
)
def test_files_that_are_none(content, said, tmp_path):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_class_names(tmp_path / "names")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="there is no file nowhere"):
        read_class_names("nowhere")
    with pytest.raises(DataError, match="is no file"):
        read_class_names(tmp_path)


def test_which_names(tmp_path):
    (tmp_path / "names").write_text("a\nb\n")
    assert class_names(2, tmp_path / "names", ("c", "d")) == ("a", "b")
    assert class_names(2, None, ("c", "d")) == ("c", "d")
    assert class_names(3, None, ("c", "d")) == ("0", "1", "2")  # those of another head
    assert class_names(1000) == imagenet_classes()
    assert class_names(1000, None, tuple(map(str, range(1000)))) == tuple(map(str, range(1000)))
    with pytest.raises(DataError, match="names has 2 names, and the network tells 3 classes apart"):
        class_names(3, tmp_path / "names")
