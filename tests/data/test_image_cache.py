"""The cache of decoded images: the same values with it and without, whatever happens to its files."""

import errno
import multiprocessing
import os
import time
import warnings

import numpy as np
import pytest
from drawn_folders import folder_of_noise, noise
from test_map_dataset import CROPS, assert_same

from minires import data
from minires.data.images import cache as image_cache
from minires.errors import ConfigError

KEY = b"d" * 16


def batches(root, cache, augment=CROPS):
    dataset = data.MapDataset(data.ImageFolder(root), 32, cache=cache)
    return [[list(data.Loader(dataset, 5, augment=augment, seed=1))][0] for _ in range(1)]


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def counted(monkeypatch):
    """The files that have been decoded."""
    decoded = []
    original = data.ImageFolder.decoded
    monkeypatch.setattr(
        data.ImageFolder, "decoded", lambda self, i, content: decoded.append(i) or original(self, i, content)
    )
    return decoded


@pytest.mark.parametrize("augment", [CROPS, None])
def test_the_same_values_with_a_cache_and_without(tmp_path, counted, augment):
    root, cache = folder_of_noise(tmp_path / "photos"), data.ImageCache(tmp_path / "cache")
    expected = batches(root, None, augment)
    assert_same(expected, batches(root, cache, augment))
    del counted[:]
    assert_same(expected, batches(root, data.ImageCache(tmp_path / "cache"), augment))
    assert not counted  # nothing was decoded again


def test_images_are_found_by_their_bytes(tmp_path, counted):
    root, cache = folder_of_noise(tmp_path / "photos"), data.ImageCache(tmp_path / "cache")
    batches(root, cache)
    os.rename(root / "cat" / "000.png", root / "cat" / "renamed.png")
    del counted[:]
    batches(root, cache)
    assert not counted
    other = folder_of_noise(tmp_path / "others", ("x",), 8) / "x" / "007.png"
    other.rename(root / "cat" / "001.png")  # other bytes under an old name
    expected = batches(root, None)
    del counted[:]
    assert_same(expected, batches(root, cache))
    assert len(set(counted)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:20] + b"\xff\xff\xff\xff" + content[24:],
        lambda content: content[:16] + content[20:24] + content[16:20] + content[24:],  # height and width exchanged
        lambda content: bytes(len(content)),
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    cache, pixels = data.ImageCache(tmp_path), noise(0, 9, 7)
    cache.get(KEY, "kind", lambda: pixels)
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(cache.get(KEY, "kind", lambda: pixels), pixels)
    assert path.read_bytes() == whole


def test_an_entry_under_the_name_of_another_is_not_taken(tmp_path):
    cache = data.ImageCache(tmp_path)
    cache.get(b"a" * 16, "kind", lambda: noise(0, 9, 7))
    (first,) = entries(tmp_path)
    cache.get(b"b" * 16, "kind", lambda: noise(1, 9, 7))
    (second,) = set(entries(tmp_path)) - {first}
    second.write_bytes(first.read_bytes())
    np.testing.assert_array_equal(cache.get(b"b" * 16, "kind", lambda: noise(1, 9, 7)), noise(1, 9, 7))


def test_other_kinds_and_other_versions_of_pillow_are_other_entries(tmp_path, monkeypatch):
    cache = data.ImageCache(tmp_path)
    cache.get(KEY, "reduced 32", lambda: noise(0, 9, 7))
    np.testing.assert_array_equal(cache.get(KEY, "reduced 64", lambda: noise(1, 9, 7)), noise(1, 9, 7))
    monkeypatch.setattr("PIL.__version__", "0")
    np.testing.assert_array_equal(
        data.ImageCache(tmp_path).get(KEY, "reduced 32", lambda: noise(2, 9, 7)), noise(2, 9, 7)
    )


def test_a_full_disk_is_said_once_and_costs_no_image(tmp_path, monkeypatch, page):
    root, cache = folder_of_noise(tmp_path / "photos"), data.ImageCache(tmp_path / "cache")
    expected = batches(root, None)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_cache.os, "replace", full)
    with pytest.warns(UserWarning, match=r"keeps no more decoded images in .* \(No space left on device\)") as said:
        assert_same(expected, batches(root, cache))
    assert len(said) == 1
    page(str(said[0].message))
    assert not entries(tmp_path / "cache")


def test_what_cannot_be_a_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be a cache of images: .*Give a folder to write to"):
        data.ImageCache(tmp_path / "file")


def test_what_killed_processes_have_left_is_removed(tmp_path):
    data.ImageCache(tmp_path)
    old, new = tmp_path / "unfinished" / ("0" * 32), tmp_path / "unfinished" / ("1" * 32)
    foreign = tmp_path / "unfinished" / "novel.txt"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    data.ImageCache(tmp_path)
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)


def _fill(root, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches(root, data.ImageCache(folder))


def test_a_process_killed_at_any_time_leaves_a_good_cache_and_two_can_fill_one(tmp_path):
    root = folder_of_noise(tmp_path / "photos", count=30)
    expected = batches(root, None)
    context = multiprocessing.get_context("spawn")  # a copy of this process, which has threads, could wait for ever
    for files in (1, 8, 20):
        process = context.Process(target=_fill, args=(root, tmp_path / "cache"))
        process.start()
        while process.is_alive() and len(list(tmp_path.glob("cache/**/*"))) < files:
            time.sleep(0.001)
        process.kill()
        process.join()
    both = [context.Process(target=_fill, args=(root, tmp_path / "cache")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert_same(expected, batches(root, data.ImageCache(tmp_path / "cache")))
