"""Images that ask for far more than they hold, and how they are read: in a process with little memory.

``python hostile_images.py`` prints a line of JSON for each: its name, what was said or "data", and the seconds.
"""

import json
import struct
import zlib

import numpy as np
from hostile import limit_memory, outcome
from image_files import encoded, jpeg_segment, picture, png, png_chunk, riff, tiff, tiff_tags
from PIL import Image

from minires.data.images.photographs import decode_image

BILLION = 31_623  # whose square is 10^9


def declared_by_jpeg(width, height, marker=0xC0):
    content = bytearray(encoded(Image.fromarray(picture(8, 8)), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 1] = marker
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def zeros(megabytes):
    """So many megabytes of zeros, packed by zlib; the checksum at their end is not right."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * megabytes + b"\x03\0" + bytes(4)


def lossless(width, height):
    """The header of a lossless WebP image and nothing else."""
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(20)


def canvas(width, height, flags=0):
    return bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]


def cases():
    small = Image.fromarray(picture())
    jpeg, plain = encoded(small, "JPEG", progressive=True), encoded(small, "PNG")
    yield "png of 10^9 pixels", png(BILLION, BILLION, zlib.compress(bytes(1000)))[:138]
    yield "png of 10^8 pixels", png(10_000, 10_000, zlib.compress(bytes(1000)))
    yield "png of 2^62 pixels", png(2**31 - 1, 2**31 - 1, b"")
    yield "png of no pixels", png(0, 7, b"")
    yield "png of a gigabyte of zeros", png(30_000, 30_000, zeros(200), colour=0)
    yield "png, cut short", png(2000, 2000, zeros(1))
    yield "png, more data than pixels", png(8, 8, zeros(500))
    yield "png, a profile that unpacks to 2 GB", plain[:33] + png_chunk(b"iCCP", b"x\0\0" + zeros(500) * 4) + plain[33:]
    yield "png, a text that unpacks to 500 MB", plain[:33] + png_chunk(b"zTXt", b"x\0\0" + zeros(500)) + plain[33:]
    yield "png, a text behind the pixels", plain[:-12] + png_chunk(b"zTXt", b"x\0\0" + zeros(500)) * 3 + plain[-12:]
    yield "png, 200,000 chunks", plain[:33] + png_chunk(b"teXt", b"") * 200_000 + plain[33:]
    yield "png, 20,000 chunks of pixels", plain[:-12] + png_chunk(b"IDAT", b"") * 20_000 + plain[-12:]
    yield "png, a chunk of 4 GB", plain[:33] + b"\xff\xff\xff\xffIDAT" + plain[33:]
    yield "png, a header that is repeated", plain[:33] + png(BILLION, BILLION, b"")[8:]
    yield "jpeg of 4·10^9 pixels", declared_by_jpeg(65_500, 65_500)
    yield "jpeg of 10^8 pixels", declared_by_jpeg(10_000, 10_000)
    yield "jpeg of 10^8 pixels, progressive", declared_by_jpeg(10_000, 10_000, 0xC2)
    yield (
        "jpeg of two sizes",
        jpeg[:2] + jpeg_segment(0xC0, struct.pack(">BHHB", 8, 60000, 60000, 1) + b"\1\x11\0") + jpeg[2:],
    )
    at = jpeg.index(b"\xff\xda")
    yield "jpeg of 20,000 scans", jpeg[:-2] + 20_000 * jpeg[at : at + 16] + jpeg[-2:]
    yield "jpeg, 60 MB of Exif data", jpeg[:2] + 1000 * jpeg_segment(0xE1, b"Exif\0\0II*\0" + bytes(65_000)) + jpeg[2:]
    yield "jpeg, 200,000 segments", jpeg[:2] + jpeg_segment(0xE2, b"") * 200_000 + jpeg[2:]
    yield "jpeg, a megabyte of 0xFF", jpeg[:2] + b"\xff" * 1_000_000 + jpeg[2:]
    yield "jpeg, segments of length 0", jpeg[:2] + b"\xff\xe1\0\0" * 100_000 + jpeg[2:]
    yield "webp canvas of 2^48 pixels", riff((b"VP8X", canvas(2**24, 2**24)), (b"VP8L", lossless(8, 8)))
    yield "webp canvas of 10^8 pixels", riff((b"VP8X", canvas(10_000, 10_000)), (b"VP8L", lossless(10_000, 10_000)))
    yield "webp, lossless, of 2^28 pixels", riff((b"VP8L", lossless(16_384, 16_384)))
    yield "webp, lossless, of 6·10^7 pixels", riff((b"VP8L", lossless(8000, 7500)))
    yield (
        "webp, animated",
        riff(
            (b"VP8X", canvas(16_000, 16_000, 2)),
            (b"ANIM", bytes(6)),
            *[
                (
                    b"ANMF",
                    bytes(6)
                    + b"\x7f\x3e\0" * 2
                    + bytes(4)
                    + b"VP8L"
                    + struct.pack("<I", 25)
                    + lossless(16_000, 16_000),
                )
            ]
            * 9,
        ),
    )
    yield (
        "webp, lossy, of 10^8 pixels",
        riff((b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(50))),
    )
    yield "webp, a chunk of 4 GB", b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff" + lossless(8, 8)
    yield (
        "gif screen of 4·10^9 pixels",
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b"," + bytes(9) + b"\2\0;",
    )
    yield (
        "gif frame of 4·10^9 pixels",
        b"GIF89a\1\0\1\0\0\0\0," + struct.pack("<HHHHB", 65535, 65535, 65535, 65535, 0) + b"\2\0;",
    )
    yield (
        "gif of 10^8 pixels",
        b"GIF89a\x10\x27\x10\x27\0\0\0," + struct.pack("<HHHHB", 0, 0, 10000, 10000, 0) + b"\2\1\x2c\0;",
    )
    bmp = b"BM" + struct.pack("<LLL", 1000, 0, 54)
    for name, width, height in (
        ("of 10^9 pixels", BILLION, BILLION),
        ("upside down", 30_000, -(2**31)),
        ("of width 0", 0, 9),
    ):
        yield f"bmp {name}", bmp + struct.pack("<LiiHHLLllLL", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(900)
    yield (
        "bmp, packed",
        bmp + struct.pack("<LiiHHLLllLL", 40, 9000, 9000, 1, 8, 1, 0, 0, 0, 0, 0) + b"\0\2\xff\xff" * 9000,
    )
    yield "tiff of 2^64 pixels", tiff(tiff_tags(2**32 - 1, 2**32 - 1))
    yield "tiff of 10^8 pixels", tiff(tiff_tags(10_000, 10_000))
    yield "tiff, strips outside the file", tiff(tiff_tags(2000, 2000, offset=10**9, count=4_000_000))
    yield "tiff, 4·10^9 strips", tiff({**tiff_tags(2000, 2000), 273: (4, 2**32 - 1, 8)})
    yield (
        "tiff, huge tiles",
        tiff({**tiff_tags(9, 9), 322: (4, 1, 2**31), 323: (4, 1, 2**31), 324: (4, 1, 8), 325: (4, 1, 9)}),
    )
    yield (
        "tiff, tiles of 16 million pixels",
        tiff({**tiff_tags(9, 9), 322: (4, 1, 4096), 323: (4, 1, 4096), 324: (4, 1, 8), 325: (4, 1, 9)}),
    )
    yield "tiff, tags that overlap", tiff(dict.fromkeys(range(40000, 40900), (1, 4000, 8)) | tiff_tags(9, 9, 8, 81))
    yield "tiff, a directory of its own", b"II*\0" + struct.pack("<LH", 8, 65535) + bytes(100)
    yield "tiff, a profile that is not there", tiff({**tiff_tags(9, 9, 8, 81), 34675: (7, 2**31, 8)})
    yield "tiff, 60,000 samples", tiff({**tiff_tags(99, 99), 277: (3, 1, 60_000), 258: (3, 60_000, 8)}, bytes(120_000))
    values = np.full((300, 300), 7, np.uint8)
    yield "tiff, packed 1000 : 1", encoded(Image.fromarray(values), "TIFF", compression="tiff_adobe_deflate")


def main():
    made = dict(cases())
    decode_image(encoded(Image.fromarray(picture()), "WEBP"), "x")  # so that all is imported
    limit_memory()
    for name, content in made.items():
        said, seconds = outcome(lambda content=content: decode_image(content, "some/file"))
        print(json.dumps([name, said, seconds]), flush=True)


if __name__ == "__main__":
    main()
