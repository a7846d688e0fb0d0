"""More than 300 corrupted bundles, of one task and of many, drawn from a seed: every one is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import BundleRunner
from deploy.bundle_files import GOLDEN, MANIFEST, SUMS
from deploy.multi.adapter_file import write_adapter
from shared_peft.atomic import sha256_of
from shared_peft.errors import SagaPeftError

DRAWS = 10
OTHER_MARK = "cd" * 32
LAYOUTS = ("single", "multi")
OPTIONAL = ("dtype", "free_axes")
FREE = ("preprocessing", "scores", "details")  # fields that hold whatever the run said


@pytest.fixture(scope="module")
def bundles(bundle_of, conv_tasks_bundle) -> dict[str, Path]:
    """A bundle of one task, and one of two."""
    return {"single": bundle_of("conv", "flora")[1], "multi": conv_tasks_bundle, "other": bundle_of("conv", "lora")[1]}


def values_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / MANIFEST).read_text())


def sign(bundle: Path, text: str | bytes) -> None:
    """Write manifest.json and make SHA256SUMS fit everything, as a careful forger would."""
    data = text.encode() if isinstance(text, str) else text
    (bundle / MANIFEST).write_bytes(data)
    names = sorted(path.name for path in bundle.iterdir() if path.name != SUMS)
    (bundle / SUMS).write_text("".join(f"{sha256_of(bundle / name)}  {name}\n" for name in names))


def relist(bundle: Path) -> None:
    """Make manifest and sums fit the files."""
    values = values_of(bundle)
    for name in values["files"]:
        path = bundle / name
        values["files"][name] = {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    sign(bundle, json.dumps(values))


def any_file(bundle: Path, rng: np.random.Generator) -> Path:
    return sorted(bundle.iterdir())[rng.integers(len(list(bundle.iterdir())))]


def loaded_file(bundle: Path, rng: np.random.Generator) -> Path:
    """Return a file that a runner reads beside the manifest."""
    found = [path for path in sorted(bundle.iterdir()) if path.suffix in (".onnx", ".onnx_adapter", ".safetensors")]
    return found[rng.integers(len(found))]


def truncated(bundle, rng, others):
    path = any_file(bundle, rng)
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def flipped_bit(bundle, rng, others):
    path = any_file(bundle, rng)
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(content))


def swapped(bundle, rng, others):
    one, two = rng.choice(sorted(bundle.iterdir()), 2, replace=False)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])


def emptied(bundle, rng, others):
    any_file(bundle, rng).write_bytes(b"")


def garbage(bundle, rng, others):
    path = any_file(bundle, rng)
    path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))


def missing(bundle, rng, others):
    any_file(bundle, rng).unlink()


def linked(bundle, rng, others):
    path = any_file(bundle, rng)
    elsewhere = bundle.parent / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def wrong_hash(bundle, rng, others):
    path = bundle / rng.choice([SUMS, MANIFEST])
    text = path.read_text()
    digest = rng.choice([entry["sha256"] for entry in values_of(bundle)["files"].values()])
    path.write_text(text.replace(digest, digest[::-1]))


def edited_value(bundle, rng, others):
    values = values_of(bundle)
    places = leaves(values)
    holder, key = places[rng.integers(len(places))]
    holder[key] = 7 if holder[key] != 7 else 8
    (bundle / MANIFEST).write_text(json.dumps(values))


def signed_value_of_another_type(bundle, rng, others):
    values = values_of(bundle)
    places = leaves({name: value for name, value in values.items() if name not in FREE})
    for task in values.get("tasks", {}).values():
        places = [place for place in places if place[0] not in [task[name] for name in FREE if name in task]]
    holder, key = places[rng.integers(len(places))]
    holder[key] = [{"x": 1}, ["x"], None][rng.integers(3)] if not isinstance(holder[key], list) else {"x": 1}
    sign(bundle, json.dumps(values))


def signed_unknown_or_missing_key(bundle, rng, others):
    values = values_of(bundle)
    holder = [values, values["input"], values["files"][GOLDEN]][rng.integers(3)]
    if rng.random() < 0.5:
        holder["extra"] = 1
    else:
        del holder[rng.choice([key for key in holder if key not in OPTIONAL])]
    sign(bundle, json.dumps(values))


def signed_path_traversal(bundle, rng, others):
    name = str(
        rng.choice(["../model.onnx", "/etc/passwd", "..", "a/b", "a\\b", ".hidden", "C:x", "", "x" * 300, "a\0b"])
    )
    values = values_of(bundle)
    holder = rng.choice([values, values["files"], *values.get("tasks", {}).values()])
    if holder is values["files"]:
        holder[name] = holder.pop("model.onnx")
    else:
        holder["file" if "file" in holder else "model_file"] = name
    sign(bundle, json.dumps(values))


def signed_duplicate_key(bundle, rng, others):
    text = json.dumps(values_of(bundle))
    key = rng.choice(["model_file", "kind", "input", "files", "opset", "nodes", "target"])
    value = json.dumps(values_of(bundle)[key])
    sign(bundle, text.replace("{", f'{{"{key}": {value}, ', 1))


def signed_impossible_shape(bundle, rng, others):
    values = values_of(bundle)
    shapes = [[10**12], [3, 10**18, 10**18], [0, 12, 12], [-3, 12, 12], [], [3, 12], [12, 12, 3], [3, 12, 12, 1]]
    values["input"]["shape"] = shapes[rng.integers(len(shapes))]
    sign(bundle, json.dumps(values))


def signed_file_of_another_bundle(bundle, rng, others):
    mine = loaded_file(bundle, rng)
    if mine.suffix == ".onnx_adapter":
        write_adapter(mine, {"pointwise.weight.default.core": np.ones((2, 2), np.float32)}, OTHER_MARK)
    else:
        name = "model.onnx" if mine.suffix == ".onnx" else mine.name
        shutil.copyfile(others[rng.integers(len(others))] / name, mine)
    relist(bundle)


def signed_damage(bundle, rng, others):
    path = loaded_file(bundle, rng)
    content = path.read_bytes()
    kinds = [b"", rng.bytes(300), content[: rng.integers(len(content))], b"\xff" * 64, b"\x08\xff" + content[2:]]
    path.write_bytes(kinds[rng.integers(len(kinds))])
    relist(bundle)


def signed_text_that_is_no_manifest(bundle, rng, others):
    text = (bundle / MANIFEST).read_text()
    texts = [
        "[" * 100_000,
        "null",
        "[]",
        '"text"',
        text.replace('"nodes": ', '"nodes": ' + "9" * 5000),
        text.replace('"nodes": ', '"nodes": -'),
        text.replace('"opset": ', '"opset": NaN, "x": '),
        b"\xff\xfe" + text.encode(),
        text.encode("utf-16"),
        text + "}",
    ]
    sign(bundle, texts[rng.integers(len(texts))])


DAMAGES: tuple[Callable[..., None], ...] = (
    truncated,
    flipped_bit,
    swapped,
    emptied,
    garbage,
    missing,
    linked,
    wrong_hash,
    edited_value,
    signed_value_of_another_type,
    signed_unknown_or_missing_key,
    signed_path_traversal,
    signed_duplicate_key,
    signed_impossible_shape,
    signed_file_of_another_bundle,
    signed_damage,
    signed_text_that_is_no_manifest,
)


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """Return (holder, key) of every value that holds no other."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, item in items:
        found += leaves(item) if isinstance(item, (dict, list)) and item else [(value, key)]
    return found


def load(bundle: Path) -> int:
    """Answer with every file of a bundle; return how many there are."""
    variants = ["", *getattr(BundleRunner(bundle, threads=1).manifest, "variants", {})]
    for variant in variants:
        BundleRunner(bundle, threads=1, variant=variant).check_golden()
    return len(variants)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_corrupted_bundle_is_refused(bundles, tmp_path, layout, damage):
    others = [path for name, path in bundles.items() if name != layout]
    seed = DAMAGES.index(damage)
    for draw in range(DRAWS):
        bundle = Path(shutil.copytree(bundles[layout], tmp_path / str(draw) / "bundle"))
        damage(bundle, np.random.default_rng([seed, draw, LAYOUTS.index(layout)]), others)
        with pytest.raises(SagaPeftError):
            load(bundle)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unedited_and_honestly_signed_copies_load(bundles, tmp_path, layout):
    bundle = Path(shutil.copytree(bundles[layout], tmp_path / "bundle"))
    assert load(bundle) >= 1
    relist(bundle)
    assert load(bundle) >= 1


def test_there_are_more_than_three_hundred():
    assert len(DAMAGES) * DRAWS * len(LAYOUTS) >= 300
