"""Random changes of checkpoints: of their bytes, lengths and metadata, mostly with a checksum that is right again."""

import copy
import json

from minires.interop.checkpoint_layout import BEFORE_SUM, SUM, checksum

NUMBERS = (-1, 0, 1, 2, 3, 7, 10**6, 2**31 - 1, 2**31, 2**63, 2**64, 2**128, 10**400, -(10**30))
REALS = (0.5, -0.5, 1e-300, 1e300, -0.0)
TEXTS = (
    "",
    "x",
    "numba",
    "conv1.weight",
    "optimizer/state/0/momentum_buffer",
    "\ud800",
    "a" * 10_000,
    "../..",
    "\0",
    "resnet20",
)
RAW = (
    "NaN",
    "-Infinity",
    "1e400",
    "9" * 5000,
    "[" * 5000 + "]" * 5000,
    '{"a": 1, "a": 2}',
    '{"x":' * 5000 + "0" + "}" * 5000,
)
OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"array": "fc.bias"},
    {"value": []},
    {"list": 3},
    {"dict": [[1]]},
    [0.1, 0.2, 0.3],
)
KEYS = ("num_classes", "in_channels", "lr", "0", "", "array", "dict", "momentum_buffer", "option")
DTYPES = ("F16", "F64", "I8", "I32", "I64", "U8", "BOOL", "BF16", "C64", "F8_E4M3", "F4", "X")


def parts(data):
    """(header, content of its metadata, bytes of the arrays) of a checkpoint."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return header, json.loads(header["__metadata__"]["minires"]), data[end:]


def with_sum(data):
    """The bytes with the right checksum, where there is room for one."""
    data = bytearray(data)
    if len(data) >= SUM.stop:
        data[SUM] = b"0" * 64
        data[SUM] = checksum(data)
    return bytes(data)


def whole(header, text, arrays):
    """The file with this header and this JSON for metadata, and with the right checksum."""
    table = {"__metadata__": {"minires": text}, **{k: v for k, v in header.items() if k != "__metadata__"}}
    encoded = json.dumps(table, separators=(",", ":"), ensure_ascii=True).encode()
    assert encoded.startswith(BEFORE_SUM)
    encoded += b" " * (-len(encoded) % 8)
    return with_sum(len(encoded).to_bytes(8, "little") + encoded + arrays)


def places(tree, found):
    """All (container, key) below a tree."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        found.append((tree, key))
        if isinstance(tree[key], dict | list):
            places(tree[key], found)
    return found


def value(rng):
    return rng.choice(rng.choice((NUMBERS, REALS, TEXTS, OTHERS, tuple(f"@raw{i}@" for i in range(len(RAW))))))


def change(rng, container, key):
    """Replace, remove, rename, copy or swap what is at a place."""
    kind = rng.choice(("replace", "replace", "replace", "nudge", "remove", "rename", "swap"))
    old = container[key]
    if kind == "nudge" and isinstance(old, int | float):
        container[key] = rng.choice((old + 1, -old, old * 1000, float(old), str(old), not old))
    elif kind == "remove":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[rng.choice(KEYS)] = container.pop(key)
    elif kind == "swap":
        other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], container[key]
    else:
        container[key] = copy.deepcopy(value(rng))


def metadata(rng, data):
    header, content, arrays = parts(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        # each entry as often as the others
        top = rng.choice(list(content["info"].values())) if content["info"] else None
        at = (
            places(top, [])
            if isinstance(top, dict | list) and top and rng.random() < 0.7
            else places(content["info"], [])
        )
        if at:
            change(rng, *rng.choice(at))
    text = json.dumps({"checksum": "0" * 64, "info": content["info"]}, ensure_ascii=False)
    for i, raw in enumerate(RAW):
        text = text.replace(f'"@raw{i}@"', raw)
    if rng.random() < 0.05:
        text = text.replace('"info": {', '"info": {"epoch": 1, ')
    return whole(header, text.encode("utf-8", "replace").decode(), arrays)


def table(rng, data):
    """Change what the header says of an array."""
    header, content, arrays = parts(data)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match rng.choice(("dtype", "shape", "name", "swap", "flat", "remove")):
        case "dtype":
            entry["dtype"] = rng.choice(DTYPES)
        case "shape":
            entry["shape"] = rng.choice(
                ([], [0], [2**62, 0], entry["shape"] + [1] * rng.choice((1, 70)), entry["shape"][::-1])
            )
        case "name":
            header[rng.choice(TEXTS)] = header.pop(name)
        case "swap":
            other = rng.choice([other for other in header if other != "__metadata__"])
            header[name], header[other] = header[other], header[name]
        case "flat":
            entry["shape"] = [(entry["data_offsets"][1] - entry["data_offsets"][0]) // 4]
        case "remove":
            del header[name]
    return whole(header, json.dumps(content, ensure_ascii=False), arrays)


def flip(rng, data):
    data = bytearray(data)
    end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(end if rng.random() < 0.8 else len(data))] ^= 1 << rng.randrange(8)
    return with_sum(data) if rng.random() < 0.9 else bytes(data)


def cut(rng, data):
    data = data[: rng.randrange(len(data))]
    return with_sum(data) if rng.random() < 0.5 else data


def mutate(rng, data):
    """A random change of a checkpoint's bytes."""
    return rng.choices((metadata, table, flip, cut), (12, 3, 4, 1))[0](rng, data)
