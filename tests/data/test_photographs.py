"""Photographs are read as Pillow reads them, and transformed as by torchvision, to the grey level."""

import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch_peers
from image_files import by_pillow, encoded, picture, png
from PIL import Image, ImageOps

from minires.data import evaluation_transform, find_images, read_image
from minires.data.images import photographs
from minires.data.images.photographs import decode_image, default_resize, upright
from minires.data.images.resampling import resized_window
from minires.errors import ConfigError, DataError, ImageError

MODES = {
    "RGB": lambda: Image.fromarray(picture()),
    "L": lambda: Image.fromarray(picture()[..., 0]),
    "1": lambda: Image.fromarray(picture()[..., 0]).convert("1"),
    "P": lambda: Image.fromarray(picture()).quantize(17),
    "RGBA": lambda: Image.fromarray(picture(channels=4), "RGBA"),
    "LA": lambda: Image.fromarray(picture(channels=2), "LA"),
    "CMYK": lambda: Image.fromarray(picture()).convert("CMYK"),
}
STORED = [
    *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0, "comment": "a comment", "icc_profile": bytes(100_000)}),
    *(("PNG", mode, {}) for mode in ("RGB", "L", "1", "P", "RGBA", "LA")),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "P", {"transparency": bytes(range(17))}),
    ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    ("PNG", "L", {"transparency": 4}),
    *(("WEBP", mode, options) for mode in ("RGB", "L", "RGBA") for options in ({}, {"lossless": True})),
    ("WEBP", "RGB", {"icc_profile": bytes(1001), "xmp": bytes(99)}),
    *(("GIF", mode, {}) for mode in ("RGB", "L", "P")),
    ("GIF", "P", {"transparency": 2, "comment": "x" * 1000}),
    *(("BMP", mode, {}) for mode in ("RGB", "L", "1", "P", "RGBA")),
    *(("TIFF", mode, {}) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK")),
    *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    ("TIFF", "1", {"compression": "group4"}),
]


@pytest.mark.parametrize(("format", "mode", "options"), STORED)
def test_every_format_and_mode_as_pillow_reads_it(format, mode, options, tmp_path):
    content = encoded(MODES[mode](), format, **options)
    path = tmp_path / "without-extension"
    path.write_bytes(content)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, by_pillow(content))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(format, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a maker"
    content = encoded(Image.fromarray(picture()), format, exif=exif)
    image = decode_image(content, "x")
    assert image.shape[:2] == ((37, 53) if orientation < 5 else (53, 37))
    np.testing.assert_array_equal(image, by_pillow(content))


def test_upright_is_exif_transpose():
    image = picture(4, 6)
    for orientation in range(1, 9):
        pil = Image.fromarray(image)
        pil.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(upright(image, orientation), np.asarray(ImageOps.exif_transpose(pil)))


def test_exif_data_that_lie():
    """Orientations that there are not, of other types, outside the data, and a megabyte of them: the image is read."""
    plain = encoded(Image.fromarray(picture()), "JPEG")
    expected = decode_image(plain, "x")
    head = b"Exif\0\0II*\0\x08\0\0\0"
    entries = [
        b"\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0",
        b"\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0",
        b"\x01\0\x12\x01\x05\0\x01\0\0\0\xff\xff\xff\xff",
        b"\xff\xff\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
        b"",
    ]
    for data in [
        *(head + entry + bytes(4) for entry in entries),
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif",
    ]:
        segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2) + data
        np.testing.assert_array_equal(decode_image(plain[:2] + segment + plain[2:], "x"), expected)
    much = b"\xff\xe1\xff\xff" + head.ljust(65533, b"x")
    np.testing.assert_array_equal(decode_image(plain[:2] + 40 * much + plain[2:], "x"), expected)


def test_what_follows_the_image_is_not_looked_at():
    """As a video that phones put behind a JPEG, in which there are markers by chance."""
    plain = encoded(Image.fromarray(picture()), "JPEG")
    np.testing.assert_array_equal(decode_image(plain + b"\xff\xda\0\x08" * 1000, "x"), decode_image(plain, "x"))


def test_sixteen_bits_are_scaled():
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(values), format), "x"), expected)
    big_endian = encoded(Image.fromarray(values.astype(">u2")), "TIFF")
    np.testing.assert_array_equal(decode_image(big_endian, "x"), expected)


def test_sixteen_bit_colours():
    """A PNG of 16 bits a channel, which Pillow cannot write: its upper bytes."""
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    content = png(7, 5, zlib.compress(b"".join(b"\0" + row.tobytes() for row in values)), bits=16)
    np.testing.assert_array_equal(decode_image(content, "x"), (values >> 8).astype(np.uint8))


def test_floats_and_whole_numbers_of_32_bits():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for white in (1, 255, 65535):
        image = decode_image(encoded(Image.fromarray(ramp * np.float32(white)), "TIFF"), "x")
        np.testing.assert_array_equal(image[..., 1], np.arange(256).reshape(16, 16))
    for white in (255, 65535):
        values = np.rint(ramp.astype(np.float64) * white).astype(np.int32)
        image = decode_image(encoded(Image.fromarray(values), "TIFF"), "x")
        np.testing.assert_array_equal(image[..., 2], np.arange(256).reshape(16, 16))
    for wrong in (np.nan, np.inf, -1.0, 1e12):
        ramp[3, 3] = wrong
        with pytest.raises(ImageError, match="which are no grey levels"):
            decode_image(encoded(Image.fromarray(ramp), "TIFF"), "x")


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(picture()) for _ in range(3)]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode_image(content, "x"), by_pillow(content), err_msg=format)


@pytest.mark.parametrize("options", [{}, {"transparency": 2}], ids=["", "transparent"])
def test_a_frame_that_is_smaller_than_its_gif(options):
    content = bytearray(encoded(MODES["P"](), "GIF", **options))
    content[6:10] = (90).to_bytes(2, "little") + (70).to_bytes(2, "little")
    image = decode_image(bytes(content), "x")
    assert image.shape == (70, 90, 3)
    np.testing.assert_array_equal(image, by_pillow(bytes(content)))


def test_conversion_in_strips(monkeypatch):
    monkeypatch.setattr(photographs, "STRIP", 200)
    for mode in ("RGB", "P", "LA"):
        content = encoded(MODES[mode](), "PNG")
        np.testing.assert_array_equal(decode_image(content, "x"), by_pillow(content))


SIZES = [(224, 224), (256, 256), (500, 375), (375, 500), (333, 777), (641, 427), (257, 255), (1, 1), (3, 2), (100, 60)]
SIZES += [(1000, 31), (17, 900), (900, 3), (1, 400), (256, 300), (300, 256), (255, 1023), (4100, 256)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("crop", "resize"), [(224, 256), (224, 232), (32, 32), (299, 342), (97, 50), (64, 97)])
def test_the_transform_is_torchvisions(size, crop, resize):
    transforms = torch_peers.torchvision().transforms
    image = picture(*size)
    steps = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])
    expected = np.asarray(steps(Image.fromarray(image)))
    found = evaluation_transform(image, crop, resize)
    assert found.flags.c_contiguous
    if max(size) < 256 * min(size):
        np.testing.assert_array_equal(found, expected)
    else:  # in strips, Pillow's order of passes depends on its version
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_default_sizes():
    image = picture(300, 400)
    np.testing.assert_array_equal(evaluation_transform(image, 224), evaluation_transform(image, 224, 256))
    np.testing.assert_array_equal(evaluation_transform(image, 32), evaluation_transform(image, 32, 32))
    assert [default_resize(size) for size in (32, 96, 128, 224, 288)] == [32, 96, 146, 256, 329]
    square = picture(32, 32)
    np.testing.assert_array_equal(evaluation_transform(square, 32), square)
    for wrong in (0, -1, 4097, 2.5, True):
        with pytest.raises(ConfigError, match="from 1 to 4096, not"):
            evaluation_transform(image, wrong)
        with pytest.raises(ConfigError, match=r"resize must be .* from 1 to 4096, not"):
            evaluation_transform(image, 32, wrong)


@pytest.mark.parametrize(
    ("old", "new"), [((50, 60), (70, 80)), ((60, 50), (20, 17)), ((1, 99), (31, 13)), ((40, 90), (40, 17))]
)
def test_the_window_of_a_resized_image(old, new):
    """Whatever the order of passes: in sizes where Pillow's has always been the horizontal one first."""
    image = picture(*old)
    whole = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized_window(image, new, (0, 0), new), whole)
    np.testing.assert_array_equal(resized_window(image, new, (3, 5), (9, 7)), whole[3:12, 5:12])


def test_a_strip_costs_no_memory():
    """Of 1 × 60,000 pixels all those resized would take 11 GB."""
    image = picture(60_000, 1)
    found = evaluation_transform(image, 224)
    assert found.shape == (224, 224, 3)
    assert abs(found.astype(int).mean() - image[29_990:30_010].mean()) < 100
    np.testing.assert_array_equal(evaluation_transform(image.transpose(1, 0, 2), 224), found.transpose(1, 0, 2))


def test_find_images(tmp_path):
    for name in ("b.jpg", "a.PNG", "text.txt", ".hidden.png", "sub/c.WebP", ".git/d.png", "sub/deeper/e.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path, tmp_path / "text.txt"])]
    assert found == ["a.PNG", "b.jpg", "sub/c.WebP", "sub/deeper/e.tif", "text.txt"]
    assert find_images(["nowhere.jpg"]) == [Path("nowhere.jpg")]
    assert find_images(["a" * 300]) == [Path("a" * 300)]
    with pytest.raises(ImageError, match=r"empty holds no image: there is no file of \.jpg, "):
        find_images([tmp_path / "empty"])
    errors = []
    assert find_images([tmp_path / "empty", "x"], on_error=errors.append) == [Path("x")]
    assert len(errors) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path):
    (tmp_path / "a.png").touch(0o000)
    with pytest.raises(ImageError, match=r"a.png cannot be read: Permission denied"):
        read_image(tmp_path / "a.png")
    tmp_path.chmod(0o000)
    with pytest.raises(ImageError, match="cannot be looked into: Permission denied"):
        find_images([tmp_path])
    tmp_path.chmod(0o700)


def test_many_threads():
    """No global state of Pillow's or of the warnings module's is changed: each thread gets its own image."""
    contents = [encoded(Image.fromarray(np.full((50, 50, 3), i, np.uint8)), "PNG") for i in range(8)]
    wrong = []

    def read(i):
        for _ in range(20):
            if not (decode_image(contents[i], "x") == i).all():
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_errors_are_data_errors():
    assert issubclass(ImageError, DataError)
