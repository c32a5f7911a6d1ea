"""What is in a JPEG, PNG, WebP, GIF, BMP or TIFF file, found without decoding: its format, declared size and orientation,
and the file without its metadata.

Only what holds pixels is given to Pillow. Colour profiles, comments, thumbnails and Exif data, which may be compressed, huge
or untrue, are never seen by a decoder, and their errors cost no image. What is damaged is left as it is for Pillow to refuse.

ISO/IEC 10918-1 (JPEG) B.1; W3C PNG (third edition) 5; RFC 9649 (WebP) 2; GIF89a; TIFF 6.0, section 2; CIPA DC-008 (Exif) 4.6.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over all coefficients; encoders write about ten


class Malformed(ValueError):
    """A file that is not read. The message is the rest of a sentence about it."""


@dataclass(frozen=True)
class ImageFile:
    """An encoded image.

    kind         "JPEG", "PNG", "WebP", "GIF", "BMP" or "TIFF"
    content      the file without its metadata
    size         (width, height) as declared, or None where Pillow finds it without reserving memory
    orientation  Exif's: 1 (upright) to 8, see ``photographs.upright``
    """

    kind: str
    content: bytes
    size: tuple[int, int] | None = None
    orientation: int = 1


def parse(content: bytes) -> ImageFile:
    """The ImageFile of the bytes of a file. Raises Malformed for another format, and for what no encoder writes."""
    for signature, read in SIGNATURES.items():
        if re.match(signature, content, re.DOTALL):
            return read(content)
    brand = content[8:12] if content[4:8] == b"ftyp" else b""
    if brand[:3] in (b"hei", b"hev", b"mif", b"msf", b"avi"):
        raise Malformed(f"{'is AVIF' if brand[:3] == b'avi' else 'is HEIC'}, which is not read: save it as JPEG or PNG")
    raise Malformed("is no image that is read: JPEG, PNG, WebP, GIF, BMP and TIFF are")


# JPEG

MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a byte 0xFF of the coded data nor a restart in it
SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of a frame
METADATA = {0xFE, *range(0xE1, 0xF0)} - {
    0xEE
}  # comments and APP1…15, without Adobe's, which says how colours are coded


def _jpeg(content: bytes) -> ImageFile:
    kept: list[bytes] = []
    at, scans, size, exif = 0, 0, None, b""
    while (found := MARKER.search(content, at)) is not None:
        marker, start = content[found.start() + 1], found.end()
        if marker in (0x01, 0xD8, 0xD9):  # those without a segment
            kept.append(content[at:start])
            at = start
            if marker == 0xD9:  # the end of the image: what follows may be a video
                break
            continue
        length = int.from_bytes(content[start : start + 2])
        segment = content[start + 2 : start + length]
        if marker in METADATA:
            kept.append(content[at : found.start()])
            if marker == 0xE1 and segment[:6] == b"Exif\0\0":
                exif = exif or segment[6:]
        else:
            kept.append(content[at : start + length])
        if marker in SIZES and len(segment) >= 5:
            height, width = struct.unpack(">HH", segment[1:5])
            size = width, height
        scans += marker == 0xDA
        at = start + length
    else:
        kept.append(content[at:])
    if scans > MAX_SCANS:
        raise Malformed(f"is a JPEG of {scans:,} scans, and more than {MAX_SCANS} are not read")
    return ImageFile("JPEG", b"".join(kept), size, exif_orientation(exif))


# PNG


def _png(content: bytes) -> ImageFile:
    kept, at, size, exif = [content[:8]], 8, None, b""
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        name, end = content[at + 4 : at + 8], at + 12 + length
        if name == b"IHDR" and length >= 8:
            size = struct.unpack_from(">II", content.ljust(24, b"\0"), 16)
        elif name == b"eXIf":
            exif = content[at + 8 : end - 4]
        if name[:1].isupper():  # a critical chunk: all others can be ignored, also tRNS, since alpha is not looked at
            kept.append(content[at:end])
        at = end
        if name == b"IEND":
            break
    return ImageFile("PNG", b"".join(kept), size, exif_orientation(exif))


# WebP


def _webp(content: bytes) -> ImageFile:
    kept, at, frames, size, exif = [b"WEBP"], 12, 0, None, b""
    while at + 8 <= len(content):
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        chunk, data = content[at:end], content[at + 8 : at + 8 + length]
        if name == b"VP8X" and len(data) >= 10:
            size = int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
            chunk = chunk[:8] + bytes([data[0] & ~0x2C]) + chunk[9:]  # without a profile, Exif and XMP
        elif name == b"VP8 " and len(data) >= 10:
            size = size or (
                struct.unpack_from("<H", data, 6)[0] & 0x3FFF,
                struct.unpack_from("<H", data, 8)[0] & 0x3FFF,
            )
        elif name == b"VP8L" and len(data) >= 5:
            bits = int.from_bytes(data[1:5], "little")
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif name == b"EXIF":
            exif = data.removeprefix(b"Exif\0\0")
        if name in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM") or (name == b"ANMF" and frames == 0):
            kept.append(chunk)
        frames += name == b"ANMF"  # of an animation, whose first one is taken; Exif data stand behind the last
        at = end
    body = b"".join(kept)
    return ImageFile("WebP", b"RIFF" + struct.pack("<I", len(body)) + body, size, exif_orientation(exif))


# GIF and BMP


def _gif(content: bytes) -> ImageFile:
    """The size is that of the screen or, where that is larger, of the first frame, which stands behind extensions."""
    head = content.ljust(13, b"\0")
    width, height, flags = struct.unpack_from("<HHB", head, 6)
    at = table = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    control = b""  # with the colour around a frame that is smaller than the screen
    while at < len(content) and content[at : at + 1] not in (b",", b";"):
        start, extension = at, content[at : at + 1] == b"!"
        at += 2 if extension else 1
        while extension and at < len(content) and content[at]:  # blocks of up to 255 bytes, the last one empty
            at += 1 + content[at]
        at += extension
        if content[start : start + 3] == b"!\xf9\x04":
            control = content[start:at]
    if content[at : at + 1] != b"," or at + 9 > len(content):
        raise Malformed("is a GIF without an image: it is damaged or cut short")
    left, top, columns, rows = struct.unpack_from("<HHHH", content, at + 1)
    size = max(width, left + columns), max(height, top + rows)
    return ImageFile("GIF", content[:table] + (control if len(control) == 8 else b"") + content[at:], size)


def _bmp(content: bytes) -> ImageFile:
    return ImageFile("BMP", content)


# TIFF

TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # the bytes of a value of each type
WIDTH, HEIGHT, ORIENTATION, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 256, 257, 274, 277, 322, 323
SCALARS = {WIDTH, HEIGHT, 259, 262, 266, SAMPLES, 278, 284, 292, 293, 317, TILE_WIDTH, TILE_HEIGHT}
PIXEL_TAGS = SCALARS | {258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 532}


def _tiff(content: bytes) -> ImageFile:
    """The first image of the file, whose directory keeps only the tags that say where and how pixels are stored."""
    directory = _directory(content)
    if directory is None:
        raise Malformed("is a TIFF whose first directory is not all there: it is damaged or cut short")
    at, entries = directory
    order = _order(content)
    size = (_scalar(content, entries, WIDTH), _scalar(content, entries, HEIGHT))
    kept, total, tags = b"", 0, set()
    for tag, kind, count, place in entries:
        if tag not in PIXEL_TAGS or tag in tags:
            continue
        tags.add(tag)
        bytes_ = TYPES.get(kind, 0) * count
        total += bytes_
        start = place if bytes_ <= 4 else struct.unpack_from(order + "L", content, place)[0]
        if not 0 < bytes_ <= len(content) - start or total > len(content) or (tag in SCALARS and count != 1):
            raise Malformed(f"is a TIFF whose tag {tag} cannot be right: it has {count:,} values at byte {start:,}")
        kept += content[place - 8 : place + 4]
    for tile, side in ((TILE_WIDTH, size[0]), (TILE_HEIGHT, size[1])):
        if _scalar(content, entries, tile) > max(2 * side, 4096):
            raise Malformed(f"is a TIFF of {size[0]:,}×{size[1]:,} pixels whose tiles are much larger")
    if _scalar(content, entries, SAMPLES) > 6:  # Pillow would log an error
        raise Malformed(
            f"is a TIFF of {_scalar(content, entries, SAMPLES)} values a pixel, and more than 6 are not read"
        )
    changed = bytearray(content)
    new = struct.pack(order + "H", len(kept) // 12) + kept + bytes(4)
    changed[at : at + len(new)] = new
    return ImageFile("TIFF", bytes(changed), size, exif_orientation(content))


def _order(content: bytes) -> str:
    return "<" if content[:2] == b"II" else ">"


def _directory(content: bytes) -> tuple[int, list[tuple[int, int, int, int]]] | None:
    """(its place, [(tag, type, number of values, the place of the value or of its offset)]) of the first directory."""
    order = _order(content)
    if content[:4] not in (b"II*\0", b"MM\0*") or len(content) < 8:
        return None
    (at,) = struct.unpack_from(order + "L", content, 4)
    if at + 2 > len(content):
        return None
    (count,) = struct.unpack_from(order + "H", content, at)
    if at + 6 + 12 * count > len(content):
        return None
    return at, [(*struct.unpack_from(order + "HHL", content, p), p + 8) for p in range(at + 2, at + 2 + 12 * count, 12)]


def _scalar(content: bytes, entries: list[tuple[int, int, int, int]], wanted: int) -> int:
    """The value of a tag that is one whole number, or 0."""
    for tag, kind, count, place in entries:
        if tag == wanted and count == 1 and kind in (1, 3, 4):
            return int(struct.unpack_from(_order(content) + {1: "B", 3: "H", 4: "L"}[kind], content, place)[0])
    return 0


def exif_orientation(exif: bytes) -> int:
    """The orientation in Exif data, which are a TIFF file; 1 where there is none or no such number."""
    directory = _directory(exif + bytes(4))  # a writer may leave out the offset of the next directory
    found = _scalar(exif, directory[1], ORIENTATION) if directory else 1
    return found if 1 <= found <= 8 else 1


SIGNATURES: dict[bytes, Callable[[bytes], ImageFile]] = {
    rb"\xff\xd8\xff": _jpeg,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"RIFF....WEBP": _webp,
    rb"GIF8[79]a": _gif,
    rb"BM": _bmp,
    rb"II\*\0|MM\0\*": _tiff,
}
