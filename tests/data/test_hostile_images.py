"""Images made to exhaust memory or time, and random changes of good ones: an ImageError or an image, within limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import encoded, picture, png, png_chunk
from PIL import Image, features
from test_hostile import results

from minires.data import read_image
from minires.data.images.photographs import decode_image
from minires.errors import ImageError

MUCH, FEW = "is not decoded: make it smaller", "which is more than so few bytes hold"
BROKEN = "It is damaged or cut short: take another copy of it"
EXPECTED = {
    "png of 10^9 pixels": f"some/file (74 bytes) declares 31,623×31,623 pixels, and a PNG of more than 134,217,728 {MUCH}",
    "png of 10^8 pixels": FEW,
    "png of 2^62 pixels": MUCH,
    "png of no pixels": BROKEN,
    "png of a gigabyte of zeros": MUCH,
    "png, cut short": BROKEN,
    "png, more data than pixels": "data",
    "png, a profile that unpacks to 2 GB": "data",
    "png, a text that unpacks to 500 MB": "data",
    "png, a text behind the pixels": "data",
    "png, 200,000 chunks": "data",
    "png, 20,000 chunks of pixels": "data",
    "png, a chunk of 4 GB": BROKEN,
    "png, a header that is repeated": MUCH,
    "jpeg of 4·10^9 pixels": MUCH,
    "jpeg of 10^8 pixels": FEW,
    "jpeg of 10^8 pixels, progressive": FEW,
    "jpeg of two sizes": BROKEN,
    "jpeg of 20,000 scans": "is a JPEG of 20,010 scans, and more than 100 are not read",
    "jpeg, 60 MB of Exif data": "data",
    "jpeg, 200,000 segments": "data",
    "jpeg, a megabyte of 0xFF": "data",
    "jpeg, segments of length 0": BROKEN,
    "webp canvas of 2^48 pixels": MUCH,
    "webp canvas of 10^8 pixels": MUCH,
    "webp, lossless, of 2^28 pixels": MUCH,
    "webp, lossless, of 6·10^7 pixels": FEW,
    "webp, animated": MUCH,
    "webp, lossy, of 10^8 pixels": MUCH,
    "webp, a chunk of 4 GB": BROKEN,
    "gif screen of 4·10^9 pixels": MUCH,
    "gif frame of 4·10^9 pixels": MUCH,
    "gif of 10^8 pixels": FEW,
    "bmp of 10^9 pixels": MUCH,
    "bmp upside down": MUCH,
    "bmp of width 0": BROKEN,
    "bmp, packed": FEW,
    "tiff of 2^64 pixels": MUCH,
    "tiff of 10^8 pixels": FEW,
    "tiff, strips outside the file": "image file is truncated",
    "tiff, 4·10^9 strips": "is a TIFF whose tag 273 cannot be right: it has 4,294,967,295 values at byte 8",
    "tiff, huge tiles": "is a TIFF of 9×9 pixels whose tiles are much larger",
    "tiff, tiles of 16 million pixels": "data",
    "tiff, tags that overlap": "data",
    "tiff, a directory of its own": "is a TIFF whose first directory is not all there",
    "tiff, a profile that is not there": "data",
    "tiff, 60,000 samples": "is a TIFF of 60000 values a pixel, and more than 6 are not read",
    "tiff, packed 1000 : 1": "data",
}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits on a process")


@linux
def test_hostile_images():
    found = {name: (said, seconds) for name, said, seconds in results("hostile_images.py")}
    assert found.keys() == EXPECTED.keys()
    for name, (said, seconds) in found.items():
        assert EXPECTED[name] in said, name
        assert seconds < 4, name


@linux
@pytest.mark.slow
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_random_changes(format):
    """In a process that may take 400 MB; libtiff prints what is wrong with a file, past Python."""
    [(good, refused, slowest, longest, blame_memory)] = results("fuzz_images.py", format, 2500, quiet=format != "TIFF")
    assert good + refused >= 2000
    assert min(good, refused) > 100
    assert slowest < 2
    assert longest < 500
    assert blame_memory == []


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_bomb(page, tmp_path):
    (tmp_path / "photo.png").write_bytes(png(31_623, 31_623, bytes(64)))
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "photo.png")
    page(str(caught.value))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_short_anywhere(format):
    content = encoded(Image.fromarray(picture()), format)
    for length in [*range(1, 60), *range(60, len(content) - 60, 97)]:
        with pytest.raises(ImageError, match=rf"^a b \({length:,} bytes\) "):
            decode_image(content[:length], "a b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x is empty"),
        (b"no image", "x (8 bytes) is no image that is read: JPEG, PNG, WebP, GIF, BMP and TIFF are"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "x (24 bytes) is no image that is read: JPEG, PNG, WebP, GIF, BMP and TIFF are"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "x (111 bytes) is HEIC, which is not read: save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypavif" + bytes(99), "x (111 bytes) is AVIF, which is not read: save it as JPEG or PNG"),
        (b"II+\0" + bytes(99), "x (103 bytes) is no image that is read: JPEG, PNG, WebP, GIF, BMP and TIFF are"),
        (b"GIF89a", "x (6 bytes) is a GIF without an image: it is damaged or cut short"),
    ],
    ids=["empty", "text", "postscript", "heic", "avif", "BigTIFF", "gif"],
)
def test_no_image(content, said):
    with pytest.raises(ImageError) as caught:
        decode_image(content, "x")
    assert str(caught.value) == said


def test_a_damaged_file(page, tmp_path):
    path = write(tmp_path / "photo.jpg", encoded(Image.fromarray(picture()), "JPEG")[:900])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    page(str(caught.value))


def test_a_wrong_checksum():
    """Of pixels it counts; of a text, which is not looked at, it does not."""
    content = encoded(Image.fromarray(picture()), "PNG")
    with pytest.raises(ImageError, match="cannot be decoded as PNG"):
        decode_image(content.replace(b"IDAT", b"IDAT\x01", 1), "x")
    text = bytearray(png_chunk(b"tEXt", b"a text"))
    text[-1] ^= 1
    assert decode_image(content[:33] + bytes(text) + content[33:], "x").shape == (37, 53, 3)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # nothing waits for somebody to write into it
    for path, said in (
        (tmp_path / "pipe.png", "is no regular file, and no image"),
        ("/dev/zero", "is no regular file, and no image"),
        (tmp_path, "is a folder, and no image"),
        (tmp_path / "nowhere.png", "cannot be read: No such file or directory"),
        (tmp_path / "pipe.png" / "x", "cannot be read: Not a directory"),
        (tmp_path / ("x" * 1000), "cannot be read: File name too long"),
        ("a\0b", "cannot be read: no file has a null character in its name"),
    ):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value) == f"{path} {said}".replace("\0", r"\x00")


def test_a_file_that_is_too_long(tmp_path):
    path = tmp_path / "sparse.png"
    with open(path, "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ImageError, match=r"sparse.png has 1,073,741,825 bytes, and images of more than 1,073,741,824"):
        read_image(path)


def test_not_enough_memory(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(ImageError, match="the memory that is free is not enough to decode x"):
        decode_image(encoded(Image.fromarray(picture()), "PNG"), "x")


def test_a_pillow_without_webp(monkeypatch):
    content = encoded(Image.fromarray(picture()), "WEBP")
    monkeypatch.setattr(features, "check", lambda name: name != "webp")
    with pytest.raises(ImageError, match="x is a WebP, which the installed Pillow cannot decode"):
        decode_image(content, "x")


def test_pillow_is_imported_late(tmp_path):
    """And no reader needs that another one has been imported."""
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        (tmp_path / format).write_bytes(encoded(Image.fromarray(picture()), format))
    code = "import sys, minires, minires.data; assert 'PIL' not in sys.modules; minires.data.read_image(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    paths = list(tmp_path.iterdir())
    running = [subprocess.Popen([sys.executable, "-c", code, path], env=environment) for path in paths]
    assert [process.wait(60) for process in running] == [0] * len(paths)
