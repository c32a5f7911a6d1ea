"""Folders with a folder of images for each class: what is found, in which order, and what is refused."""

import os
import sys

import numpy as np
import pytest
import torch_peers
from drawn_folders import folder_of_noise, noise, save, sizes

from minires import data
from minires.errors import DataError, ImageError


def test_images_classes_and_labels_are_those_of_torchvision(tmp_path):
    folders = torch_peers.torchvision().datasets
    folder_of_noise(tmp_path, ("b", "a10", "a9", "Z"), 3)
    save(tmp_path / "b" / "deeper" / "x.png", noise(1, 20, 30))
    save(tmp_path / "b" / "a" / "y.PNG", noise(2, 20, 30))
    save(tmp_path / "b" / "photo.jpeg", noise(3, 20, 30))
    (tmp_path / "b" / "notes.txt").write_text("no image")
    ours, theirs = data.ImageFolder(tmp_path), folders.ImageFolder(tmp_path)
    assert list(ours.classes) == theirs.classes
    assert [str(path) for path in ours.paths] == [path for path, _ in theirs.samples]
    assert ours.labels.tolist() == theirs.targets
    for i, (image, label) in enumerate(theirs):
        own, own_label = ours[i]
        assert own_label == label
        np.testing.assert_array_equal(own, np.asarray(image))


def test_an_item_is_an_image_and_a_label(tmp_path):
    folder = data.ImageFolder(folder_of_noise(tmp_path))
    image, label = folder[7]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, noise(1001, *sizes(1001)))
    assert (label, folder.files[7], len(folder)) == (1, "dog/001.png", 12)


def test_hidden_files_and_other_files_are_ignored(tmp_path):
    folder_of_noise(tmp_path)
    for name in (".hidden/1.png", "cat/.2.png", "cat/._000.png", "cat/.thumbnails/3.png", "beside.png"):
        save(tmp_path / name, noise(0, 8, 8))
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cat" / "odd.png").mkdir()
    folder = data.ImageFolder(tmp_path)
    assert (folder.classes, len(folder)) == (("cat", "dog"), 12)


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")
class TestLinks:
    def test_loops_end(self, tmp_path):
        folder_of_noise(tmp_path / "photos")
        cat = tmp_path / "photos" / "cat"
        (cat / "self").symlink_to(cat)
        (cat / "up").symlink_to(tmp_path / "photos")
        (cat / "top").symlink_to("/")
        (cat / "other").symlink_to(tmp_path / "photos" / "dog")
        (cat / "ring").symlink_to(cat / "ring")
        for i in range(20):  # each leads to all others: 20! paths without a look at what has been seen
            (cat / "many" / str(i)).mkdir(parents=True)
            for j in range(20):
                (cat / "many" / str(i) / str(j)).symlink_to(cat / "many" / str(j))
        assert data.ImageFolder(tmp_path / "photos").files == [
            f"{name}/{i:03d}.png" for name in ("cat", "dog") for i in range(6)
        ]

    def test_linked_folders_and_files_are_followed(self, tmp_path):
        elsewhere = folder_of_noise(tmp_path / "elsewhere", ("cat",), 2)
        root = folder_of_noise(tmp_path / "photos", ("dog",), 1)
        (root / "cat").symlink_to(elsewhere / "cat")
        (root / "dog" / "z.png").symlink_to(elsewhere / "cat" / "001.png")
        folder = data.ImageFolder(root)
        assert folder.files == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/z.png"]
        np.testing.assert_array_equal(folder[3][0], folder[1][0])

    def test_a_link_to_nothing_is_named_when_it_is_read(self, tmp_path):
        root = folder_of_noise(tmp_path, count=1)
        (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"cat/gone\.png cannot be read: No such file"):
            data.ImageFolder(root)[1]

    def test_a_pipe_is_no_image(self, tmp_path):
        root = folder_of_noise(tmp_path, count=1)
        os.mkfifo(root / "cat" / "a.png")
        assert len(data.ImageFolder(root)) == 2
        (root / "cat" / "b.png").symlink_to(root / "cat" / "a.png")  # nor by a link, which would wait for a writer
        with pytest.raises(DataError, match="no regular file"):
            data.ImageFolder(root)[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "there is no folder"),
        (lambda root: root.write_text(""), "is a file"),
        (lambda root: root.mkdir(), "holds no folders"),
        (lambda root: save(root / "1.png", noise(0, 8, 8)), "holds 1 image and no folders"),
        (lambda root: [save(root / "a" / "1.png", noise(0, 8, 8)), (root / "b").mkdir()], r"b holds no images \(\.jpg"),
    ],
)
def test_what_is_no_folder_of_classes(tmp_path, make, said):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=said):
        data.ImageFolder(tmp_path / "photos")


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are bytes")
def test_a_class_whose_name_is_not_utf8(tmp_path):
    folder_of_noise(tmp_path, count=1)
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        data.ImageFolder(tmp_path)


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path):
    if sys.platform != "linux":
        pytest.skip("needs names that are bytes")
    root = folder_of_noise(tmp_path, count=1)
    os.rename(root / "cat" / "000.png", os.fsencode(root / "cat") + b"/\xff.png")
    folder = data.ImageFolder(root)
    np.testing.assert_array_equal(folder[0][0], noise(0, *sizes(0)))
    assert data.MapDataset(folder, 32).checksum() > 0


def test_a_test_set_has_the_classes_of_its_training_set(tmp_path):
    train = data.ImageFolder(folder_of_noise(tmp_path / "train", ("a", "b", "c"), 2))
    test = data.ImageFolder(folder_of_noise(tmp_path / "val", ("c", "a"), 1), train.classes)
    assert test.classes == train.classes
    assert test.labels.tolist() == [0, 2]
    (tmp_path / "val" / "bb").mkdir()
    with pytest.raises(DataError, match=r"has a folder 'bb' \(did you mean b\?\), and there is no such class: there"):
        data.ImageFolder(tmp_path / "val", train.classes)


def test_damaged_images_are_named(tmp_path):
    root = folder_of_noise(tmp_path, count=1)
    path = root / "cat" / "000.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"cat/000\.png \(200 bytes\) cannot be decoded"):
        data.ImageFolder(root)[0]


def test_a_remembered_file_that_changes_is_an_error(tmp_path):
    root = folder_of_noise(tmp_path, count=2)
    folder = data.ImageFolder(root)
    first = folder.digest(0)
    os.utime(root / "cat" / "000.png")  # another time, the same bytes
    assert folder.digest(0) == first
    other = (root / "cat" / "001.png").read_bytes()
    (root / "cat" / "000.png").write_bytes(other)
    for read in (folder.digest, folder.content, folder.__getitem__):
        with pytest.raises(DataError, match=r"cat/000\.png is no longer the file that it was"):
            read(0)
    (root / "cat" / "001.png").write_bytes(other + b" ")
    folder[1]  # nobody remembers that one
