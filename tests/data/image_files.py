"""Image files that the tests make, and what Pillow itself makes of them."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

PNG = b"\x89PNG\r\n\x1a\n"


def picture(height=37, width=53, channels=3, seed=0):
    """Smooth colours with some noise, (height, width, channels) uint8."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(channels)]
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width, channels))
    return (np.stack(planes, axis=-1) + noise).clip(0, 255).astype(np.uint8)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def by_pillow(content):
    """What torchvision's ImageFolder reads, upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, data, bits=8, colour=2, more=b""):
    """A PNG with these compressed rows, and other chunks before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return PNG + header + more + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def jpeg_segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def riff(*chunks):
    """A WebP file of (name, data) chunks."""
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(tags, data=b""):
    """A little-endian TIFF of {tag: (type, count, value or offset)}, with data behind the directory."""
    entries = b"".join(struct.pack("<HHLL", tag, *entry) for tag, entry in sorted(tags.items()))
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + data


def tiff_tags(width, height, offset=8, count=1):
    """The tags of greyscale images without compression."""
    return {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, offset),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, count),
    }
