"""Small files in the official layouts of CIFAR, as the tests write them."""

import io
import struct
import tarfile

import numpy as np

COUNT = 7  # records a file


def make_content(layout, seed, count=COUNT):
    """(images (N, 32, 32, 3), labels: a list for each label of an image)."""
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, limit, count).tolist() for limit in layout.label_counts]
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), labels


def write_binary(layout, images, labels):
    """The bytes of a file of the binary version."""
    content = b""
    for i, image in enumerate(images):
        content += bytes(numbers[i] for numbers in labels)
        content += b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return content


def write_python(layout, images, labels):
    """The bytes of a file of the Python version, instruction for instruction as Python 2 wrote the official ones."""

    def string(text):
        return b"U" + bytes([len(text)]) + text.encode()

    def number(n):
        return b"K" + bytes([n]) if n < 256 else b"M" + struct.pack("<H", n)

    planes = images.transpose(0, 3, 1, 2).tobytes()
    content = b"\x80\x02}q\x01(" + string("batch_label") + b"q\x02" + string("batch 1 of 5") + b"q\x03"
    for key, numbers in zip(layout.label_keys, labels):
        content += string(key) + b"]q\x04(" + b"".join(map(number, numbers)) + b"e"
    content += (
        string("data")
        + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
    )
    content += b"(K\x01" + number(len(images)) + b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b"
    content += (
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(planes)) + planes
    )
    content += b"tb" + string("filenames") + b"q\x0c]q\r(" + b"".join(string(f"{i}.png") for i in range(len(images)))
    return content + b"eu."


def write_file(layout, version, images, labels):
    return (write_binary if version.kind == "binary" else write_python)(layout, images, labels)


def make_files(layout, version, count=COUNT):
    """File name -> bytes."""
    return {
        name: write_file(layout, version, *make_content(layout, seed, count)) for seed, name in enumerate(version.files)
    }


def plain_files(layout, version):
    """The same with one image of one colour a file: their archive is a few hundred bytes."""
    image = np.full((1, 32, 32, 3), 77, np.uint8)
    return {name: write_file(layout, version, image, [[3] for _ in layout.label_counts]) for name in version.files}


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def write_archive(path, version, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{version.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
