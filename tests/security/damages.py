"""Ways to make a file hostile, by its format; each changes the file at a path, and is drawn from a generator."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[Path, np.random.Generator], object]
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**9, 10**12, 2**63, -(2**63), 1e308, 0.5, "", "x", "\0", "é" * 500, [], {}, [[]], {"x": 1}),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "C:\\x",
        "hf-hub:someone/model",
        "local-dir:/tmp",
        "__class__",
        "a/../../b",
    ),
    *([1] * 1000, ["x", "x"], [-1, 10**12], "$(touch canary)", "<script>alert(1)</script>", "%s%n{0}"),
)


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (holder, key) of every value of a JSON document, holders included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from leaves(item)


def strange_value(path: Path, generator: np.random.Generator) -> None:
    """Put something else where any value of a JSON file stands."""
    values = json.loads(path.read_text())
    places = list(leaves(values))
    holder, key = places[generator.integers(len(places))]
    holder[key] = STRANGE[generator.integers(len(STRANGE))]
    path.write_text(json.dumps(values))


def strange_number(path: Path, generator: np.random.Generator) -> None:
    """Put NaN, an infinity or thousands of digits where any number of a JSON file stands."""
    values = json.loads(path.read_text())
    places = [(h, k) for h, k in leaves(values) if isinstance(h[k], (int, float)) and not isinstance(h[k], bool)]
    if not places:
        return extra_key(path, generator)
    holder, key = places[generator.integers(len(places))]
    holder[key] = "PLACE"
    words = ("NaN", "-Infinity", "1e999", "9" * 5000, "1" * 400, "-0.0", "1E400", "0" * 2 + "7")
    path.write_text(json.dumps(values).replace('"PLACE"', words[generator.integers(len(words))], 1))
    return None


def extra_key(path: Path, generator: np.random.Generator) -> None:
    """Add a key, or take one away."""
    values = json.loads(path.read_text())
    holders = [values, *(h[k] for h, k in leaves(values) if isinstance(h[k], dict))]
    holder = holders[generator.integers(len(holders))]
    if not isinstance(holder, dict) or (generator.random() < 0.5 and holder):
        holder.pop(next(iter(holder)) if isinstance(holder, dict) else 0)
    else:
        holder[["extra", "__init__", "", "../x"][generator.integers(4)]] = 1
    path.write_text(json.dumps(values))


def key_twice(path: Path, generator: np.random.Generator) -> None:
    """Give a key of the outermost object a second time, at its end or after 200,000 others."""
    text = path.read_text().rstrip()
    many = ", ".join(f'"k{n}": 0' for n in range(200_000 if generator.random() < 0.2 else 1))
    path.write_text(f'{text[:-1]}, {many}, "k0": 1}}' if text.endswith("}") else '{"a": 1, "a": 2}')


def other_text(path: Path, generator: np.random.Generator) -> None:
    """Write something that is no such JSON document at all."""
    text = path.read_text()
    texts: tuple[str | bytes, ...] = (
        *(
            "",
            "null",
            "[]",
            "{}",
            '"x"',
            "3",
            "NaN",
            "[" * 100_000,
            '{"a":' * 100_000,
            text[: len(text) // 2],
            text + "}",
        ),
        *(b"\xff\xfe\x00{", text.encode("utf-16"), b"\x00" * 64, text + " " * (17 << 20), "[[]," * 500_000),
        "[" + "{}," * (5 << 20) + "{}]",
    )
    content = texts[generator.integers(len(texts))]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


JSON: tuple[Damage, ...] = (
    strange_value,
    strange_value,
    strange_value,
    strange_number,
    extra_key,
    key_twice,
    other_text,
)


def bytes_changed(path: Path, generator: np.random.Generator) -> None:
    """Cut, flip, overwrite, repeat or take out a part; both ends are hit more often."""
    content = bytearray(path.read_bytes())
    ends = (generator.integers(min(400, len(content))), len(content) - 1 - generator.integers(min(400, len(content))))
    place = int((*ends, generator.integers(len(content)))[generator.integers(3)])
    length = int(generator.integers(1, 80))
    kind = generator.integers(5)
    if kind == 0:
        content = content[:place]
    elif kind == 1:
        for at in generator.integers(0, len(content), 30):
            content[at] ^= 1 << int(generator.integers(8))
    elif kind == 2:
        content[place : place + length] = generator.bytes(length)
    elif kind == 3:
        content[place:place] = content[place : place + length]
    else:
        del content[place : place + length]
    path.write_bytes(bytes(content))


def no_file(path: Path, generator: np.random.Generator) -> None:
    """Take the file away, empty it, or put a folder in its place."""
    path.unlink()
    kind = generator.integers(3)
    if kind == 0:
        path.mkdir()
    if kind == 1:
        path.write_bytes(b"")


def _header(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def header_changed(path: Path, generator: np.random.Generator) -> None:
    """Let a safetensors header say something else of one tensor: shape, type, place."""
    described, data = _header(path)
    entry = described[sorted(name for name in described if name != "__metadata__")[0]]
    changes: tuple[dict[str, Any], ...] = (
        {"shape": [2**30, 2**30]}, {"shape": [-1]}, {"shape": [2**62] * 9}, {"shape": []}, {"shape": "x"},
        {"dtype": "F4"}, {"dtype": "F8_E8M0"}, {"dtype": "I64"}, {"dtype": 3}, {"dtype": "BOOL"}, {"dtype": "C64"},
        {"data_offsets": [0, 2**62]}, {"data_offsets": [8, 0]}, {"data_offsets": [-8, 8]}, {"data_offsets": [0]},
    )  # fmt: skip
    entry.update(changes[generator.integers(len(changes))])
    _write_header(path, json.dumps(described).encode(), data)


def header_replaced(path: Path, generator: np.random.Generator) -> None:
    """Overlapping tensors, a header of 9 MB, one that is longer than the file, one with 200,000 tensors."""
    described, data = _header(path)
    kind = generator.integers(6)
    text = json.dumps(described).encode()
    if kind == 0:
        for entry in described.values():
            entry["data_offsets"] = [0, min(len(data), 16)]
        _write_header(path, json.dumps(described).encode(), data)
    elif kind == 1:
        _write_header(path, text + b" " * 9_000_000, data)
    elif kind == 2:
        path.write_bytes(struct.pack("<Q", [2**63, 2**40, len(text) + 10**6][generator.integers(3)]) + text + data)
    elif kind == 3:
        entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        _write_header(path, ("{" + ",".join(entry % n for n in range(200_000)) + "}").encode(), b"")
    elif kind == 4:
        _write_header(path, text.replace(b"{", b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},', 1), data)
    else:
        _write_header(path, b"[" * 50_000, data)


def _write_header(path: Path, text: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


TENSORS: tuple[Damage, ...] = (bytes_changed, bytes_changed, header_changed, header_changed, header_replaced, no_file)
