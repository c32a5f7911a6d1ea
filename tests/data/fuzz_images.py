"""Changed image files that Hypothesis draws, and how they are read: in a process with little memory.

``python fuzz_images.py FORMAT COUNT`` reads COUNT of them and prints a line of JSON: how many gave an image, how many an
ImageError, the seconds of the slowest, the length of the longest message, and messages that blame the machine's memory.
"""

import json
import struct
import sys

import numpy as np
from hostile import limit_memory, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import PNG, encoded, picture, png_chunk
from PIL import Image

from minires.data.images.photographs import MAX_PIXELS, decode_image
from minires.errors import ImageError

INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def wholes(format):
    """Files of one format, of each way in which it stores pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image, alpha = Image.fromarray(picture(24, 31)), Image.fromarray(picture(24, 31, 4), "RGBA")
    grey, palette = image.convert("L"), image.quantize(9)
    wide = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    ways = {
        "JPEG": [(image, {"exif": exif}), (image, {"progressive": True}), (grey, {}), (image.convert("CMYK"), {})],
        "PNG": [
            (image, {"exif": exif}),
            (alpha, {}),
            (palette, {"transparency": 3}),
            (wide, {}),
            (image.convert("1"), {}),
        ],
        "WEBP": [
            (image, {"exif": exif}),
            (alpha, {}),
            (alpha, {"lossless": True}),
            (image, {"save_all": True, "append_images": [alpha, image.rotate(90)]}),
        ],
        "GIF": [(image, {}), (palette, {"transparency": 1}), (image, {"save_all": True, "append_images": [alpha]})],
        "BMP": [(image, {}), (palette, {}), (image.convert("1"), {})],
        "TIFF": [
            *((image, {"compression": how, "exif": exif}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
            *(
                (other, {})
                for other in (wide, palette, alpha, image.convert("CMYK"), Image.fromarray(np.float32(wide)))
            ),
            (image.convert("1"), {"compression": "group4"}),
        ],
    }
    return [encoded(image, format, **options) for image, options in ways[format]]


@st.composite
def changed(draw, files, format):
    """One of the files after one to four changes; those of a PNG with right checksums, in half of the cases."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4)))):
        if not content:
            break
        # more of the changes in the headers than their share of the bytes
        most = draw(st.sampled_from((40, 200, len(content), len(content))))
        at = draw(st.integers(0, min(most, len(content)) - 1))
        how = draw(st.sampled_from(("flip", "number", "number", "cut", "remove", "repeat", "insert", "swap")))
        length = draw(st.sampled_from((1, 2, 4, 12, 40, 300)))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "number":
            size, order = draw(st.sampled_from("BHL")), draw(st.sampled_from("<>"))
            value = draw(st.sampled_from(INTERESTING)) & ((1 << 8 * struct.calcsize("=" + size)) - 1)
            content[at : at + struct.calcsize("=" + size)] = struct.pack(order + size, value)
        elif how == "cut":
            del content[at:]
        elif how == "remove":
            del content[at : at + length]
        elif how == "repeat":
            content[at:at] = content[at : at + length] * draw(st.sampled_from((1, 2, 50)))
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=40))
        else:
            other = draw(st.integers(0, len(content) - 1))
            content[at : at + length] = content[other : other + length]
    content = bytes(content)
    return right_checksums(content) if format == "PNG" and draw(st.booleans()) else content


def right_checksums(content):
    """A PNG whose chunks have the checksums of what they hold now, and rows that zlib can unpack if it could before."""
    at, chunks = 8, []
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + min(length, len(content))]
        chunks.append(png_chunk(name, data))
        at += 12 + length
    return PNG + b"".join(chunks)


def main(format, count):
    results = []
    files = wholes(format)
    for content in files:
        decode_image(content, "x")  # so that all is imported
    limit_memory()

    @settings(
        max_examples=int(count), deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(changed(files, format))
    def read(content):
        def load():
            image = decode_image(content, "some/file")
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert 0 < image.size <= 3 * MAX_PIXELS

        results.append(outcome(load, ImageError))

    read()
    said = [said for said, _ in results]
    good = said.count("data")
    memory = [message for message in said if "memory that is free" in message]
    slowest = max(seconds for _, seconds in results)
    print(json.dumps([good, len(said) - good, slowest, max(map(len, said)), memory]))


if __name__ == "__main__":
    main(*sys.argv[1:])
