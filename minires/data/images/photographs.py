"""Photographs: read from files, and made the input of a network. Pillow decodes and resizes."""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ImageError
from ..threads import Quota
from . import headers
from .resampling import resized_window

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_BYTES = 1 << 30
MAX_PIXELS = 1 << 27  # 134 million; there are cameras with 100 million. Decoding takes about 10 bytes for each
MAX_WEBP_PIXELS = 1 << 26  # its decoder takes about 20 bytes for each
DECODED_AT_ONCE = Quota(MAX_PIXELS)  # by all threads together: of large images as many as fit, or one
STRIP = 1 << 20  # pixels that are converted at once
FREE_PIXELS = 1 << 22  # an image of up to 4 million pixels may be packed into as few bytes as its format can
DENSEST = {  # pixels a byte: where the format has no limit, that of images that somebody looks at
    "JPEG": 1000,  # a block of 8 × 8 takes a bit at least
    "PNG": 10_000,  # zlib packs 1032 : 1, and a byte may be 8 pixels
    "WebP": 10_000,
    "GIF": 4000,  # a code of 12 bits is up to 4096 pixels
    "BMP": 1000,  # a run of 255 pixels takes two bytes
    "TIFF": 10_000,
}

BROKEN = (  # what Pillow's readers raise for files that are damaged
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RuntimeError, struct.error, zlib.error),
)
CROPPED_FROM = 128  # crops of fewer pixels show the whole image, as of CIFAR
MAX_SIDE = 4096  # of what images are resized and cropped to
MAX_RESIZED = 1 << 24  # pixels that Pillow may resize a strip to; of a longer one, only what is cropped is computed


def read_image(path: Path | str) -> Pixels:
    """The image in a file as (H, W, 3) uint8 RGB, turned as its Exif orientation says; of several frames the first.

    JPEG, PNG, WebP, GIF, BMP and TIFF, whatever the file's name. Colours are converted as by Pillow's ``convert("RGB")``, which
    torchvision's ``ImageFolder`` uses: alpha is dropped, and profiles are not applied. Of 16 bits a channel the upper 8 are
    kept; other wide greyscale values are scaled (``_grey``).

    Raises ImageError, which names the file and the cause, for anything else: no regular file, cut short, damaged, or one that
    declares more pixels than MAX_PIXELS or than its bytes can hold, for which no memory is taken.
    """
    return decode_image(_content(Path(path)), str(path))


def decode_image(content: bytes, name: str) -> Pixels:
    """``read_image`` of a file's bytes; name: what errors call it."""
    if not content:
        raise ImageError(f"{name} is empty")
    length = len(content)
    try:
        file = headers.parse(content)
    except headers.Malformed as error:
        raise ImageError(f"{name} ({length:,} bytes) {error}") from None
    del content  # of which ``file`` has a copy
    try:
        if file.size is not None:
            _check_size(file, file.size, length, name)
        opened = _opened(file, name)
        _check_size(file, opened.size, length, name)
        with DECODED_AT_ONCE.take(opened.width * opened.height * MAX_PIXELS // _most_pixels(file.kind)):
            opened.load()
            pixels = _rgb(opened, file.kind, name)
            del opened
    except MemoryError as error:
        raise ImageError(f"the memory that is free is not enough to decode {name}: close other programs") from error
    except ImageError:
        raise
    except BROKEN as error:
        raise ImageError(
            f"{name} ({length:,} bytes) cannot be decoded as {file.kind}: {error or type(error).__name__}. "
            "It is damaged or cut short: take another copy of it"
        ) from error
    return upright(pixels, file.orientation)


def upright(image: Pixels, orientation: int) -> Pixels:
    """The image turned and mirrored as Exif's orientation, 1 to 8, says.

    >>> upright(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 6)[..., 0]  # a camera held upright
    array([[3, 0],
           [4, 1],
           [5, 2]], dtype=uint8)
    """
    turned = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: image[::-1].transpose(1, 0, 2),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: image[:, ::-1].transpose(1, 0, 2),
    }
    return np.ascontiguousarray(turned[orientation])


def evaluation_transform(image: Pixels, size: int, resize: int | None = None) -> Pixels:
    """The image (H, W, 3) → (size, size, 3): its shorter side resized to ``resize`` pixels, then its middle cropped.

    To the grey level torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` on a PIL image: bilinear with antialiasing, and
    black around images that are smaller than the crop (to within one grey level in strips, longer than 256 times their width).
    resize: by default 256 for a crop of 224 and in this proportion, but ``size`` itself below 128. Raises ConfigError for
    sizes that are not from 1 to 4096.
    """
    from PIL import Image

    size, resize = check_sizes(size, resize)
    H, W, _ = image.shape
    long = int(resize * max(H, W) / min(H, W))
    height, width = (long, resize) if W <= H else (resize, long)
    top, left = (max(0, round((side - size) / 2)) for side in (height, width))
    rows, columns = min(size, height), min(size, width)
    if (height, width) == (H, W):
        middle = image[top : top + rows, left : left + columns]
    elif height * width > MAX_RESIZED:
        middle = resized_window(image, (height, width), (top, left), (rows, columns))
    else:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        middle = np.asarray(resized.crop((left, top, left + columns, top + rows)))
    if (rows, columns) == (size, size):
        return np.ascontiguousarray(middle)
    cropped = np.zeros((size, size, 3), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    cropped[top : top + rows, left : left + columns] = middle
    return cropped


def check_sizes(size: int, resize: int | None = None) -> tuple[int, int]:
    """The (size, resize) of ``evaluation_transform``. Raises ConfigError for one that is not from 1 to 4096."""
    for name, value in (("size", size), ("resize", resize)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MAX_SIDE:
            raise ConfigError(f"{name} must be a whole number of pixels from 1 to {MAX_SIDE}, not {value!r}")
    return size, default_resize(size) if resize is None else resize


def default_resize(size: int) -> int:
    """What ``evaluation_transform`` resizes the shorter side to before it crops ``size`` pixels.

    >>> default_resize(224), default_resize(32)
    (256, 32)
    """
    return size * 8 // 7 if size >= CROPPED_FROM else size


def find_images(paths: Iterable[Path | str], on_error: Callable[[ImageError], None] | None = None) -> list[Path]:
    """The files among the paths, and the images (by EXTENSIONS) in the folders among them and below, sorted in each.

    Hidden files and folders are left out, and links to folders are not followed. A folder that cannot be read or holds no
    image is an ImageError, which is raised or, with ``on_error``, given to that.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not os.path.isdir(path):  # also of a name that is too long, which ``read_image`` refuses
            found.append(path)
            continue
        try:
            inside = sorted(_images_below(path))
            if not inside:
                raise ImageError(f"{path} holds no image: there is no file of {', '.join(EXTENSIONS)} in it or below")
            found += inside
        except ImageError as error:
            if on_error is None:
                raise
            on_error(error)
    return found


def _images_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(f"{error.filename} cannot be looked into: {error.strerror or error}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(place, name)


def _content(path: Path) -> bytes:
    """The bytes of a regular file. Raises ImageError; nothing waits for a pipe or a device."""
    if "\0" in str(path):
        raise ImageError(f"{path} cannot be read: no file has a null character in its name")
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}, and no image")
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(f"{path} has {size:,} bytes, and images of more than {MAX_BYTES:,} are not read")
            return file.read(MAX_BYTES)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_size(file: headers.ImageFile, size: tuple[int, int], length: int, name: str) -> None:
    """Raise ImageError for more pixels than are decoded, or than so many bytes can hold."""
    width, height = size
    said = f"{name} ({length:,} bytes) declares {width:,}×{height:,} pixels"
    most = _most_pixels(file.kind)
    if width * height > most:
        raise ImageError(f"{said}, and a {file.kind} of more than {most:,} is not decoded: make it smaller")
    if width * height > max(FREE_PIXELS, DENSEST[file.kind] * length):
        raise ImageError(f"{said}, which is more than so few bytes hold: it is cut short or made to exhaust memory")


def _most_pixels(kind: str) -> int:
    return MAX_WEBP_PIXELS if kind == "WebP" else MAX_PIXELS


def _opened(file: headers.ImageFile, name: str) -> "Image":
    """Pillow's image, not decoded yet. ``Image.open`` would try all readers, and warn of sizes that are allowed here."""
    from io import BytesIO

    from PIL import features

    if file.kind == "WebP" and not features.check("webp"):
        raise ImageError(f"{name} is a WebP, which the installed Pillow cannot decode: install one that can")
    plugin = file.kind.capitalize() if file.kind != "WebP" else file.kind
    return getattr(import_module(f"PIL.{plugin}ImagePlugin"), f"{plugin}ImageFile")(BytesIO(file.content))


def _rgb(image: "Image", kind: str, name: str) -> Pixels:
    if image.mode.startswith(("I", "F")):
        grey = _grey(np.asarray(image), image.mode, kind, name)
        return np.repeat(grey[..., None], 3, axis=2)
    image.info.pop("transparency", None)  # of a palette: convert() would warn that RGB has none
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP // width)
    for y in range(0, height, rows):
        strip = image.crop((0, y, width, min(y + rows, height)))
        pixels[y : y + rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _grey(values: NDArray, mode: str, kind: str, name: str) -> Pixels:
    """Wide greyscale values (H, W) as uint8: of 16 bits the upper 8, as Pillow does for colours.

    Numbers of 32 bits and floats do not say what white is: it is the first of 1 (of floats), 255, 65,535 and 2^32 − 1 that none
    is above. Raises ImageError for negative, infinite and larger values, and NaN.
    """
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    whites = [white for white in (1.0, 255.0, 65535.0, 4294967295.0)[mode != "F" :] if high <= white]
    if not (low >= 0 and whites):
        raise ImageError(
            f"{name} has values from {low:g} to {high:g}, which are no grey levels: save it with 8 or 16 bits"
        )
    return np.rint(values * (255.0 / whites[0])).astype(np.uint8)
