"""Hostile adapter files: each costs an error of ours, no memory to speak of, and not one bit of the model."""

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.profiler import ProfilerActivity, profile

from shared_peft import FloraConfig, LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from shared_peft.errors import AdapterError, SagaPeftError
from tests.shared_peft.cases import fill_randomly

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Damage = Callable[[Path], object]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 6)).eval()


def write_adapter(folder: Path, *, stock: bool) -> None:
    model = get_peft_model(network(), LoraConfig(r=2, modules_to_save=["1"]))
    fill_randomly(model)
    model.save_pretrained(folder, stock=stock)


def config(**changes: object) -> Damage:
    return lambda folder: (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))


def text(change: Callable[[str], str]) -> Damage:
    return lambda folder: (folder / CONFIG).write_text(change((folder / CONFIG).read_text()))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def edit(folder: Path) -> None:
        stored = load_file(folder / WEIGHTS)
        change(stored)
        save_file(stored, folder / WEIGHTS)

    return edit


def header(change: Callable[[dict[str, dict[str, object]]], object]) -> Damage:
    """Change the description of the tensors, and leave their bytes as they are."""

    def edit(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        described = json.loads(content[8 : 8 + size])
        change(described)
        new = json.dumps(described).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])

    return edit


def first(described: dict[str, dict[str, object]]) -> dict[str, object]:
    return next(entry for name, entry in described.items() if name.endswith("lora_A") or "lora_A." in name)


def cast(dtype: torch.dtype) -> Damage:
    return tensors(lambda t: t.update({name: value.to(dtype) for name, value in t.items() if "lora_B" in name}))


def rename(old: str, new: str) -> Damage:
    return tensors(lambda t: t.update({name.replace(old, new): t.pop(name) for name in list(t) if old in name}))


def link_away(name: str) -> Damage:
    def edit(folder: Path) -> None:
        away = folder.parent / "elsewhere" / name
        away.parent.mkdir()
        (folder / name).rename(away)
        (folder / name).symlink_to(away)

    return edit


def cut(share: float) -> Damage:
    return lambda folder: (folder / WEIGHTS).write_bytes(
        (folder / WEIGHTS).read_bytes()[: int(share * (folder / WEIGHTS).stat().st_size)]
    )


ANY_FILE: dict[str, Damage] = {
    **{f"cut at {share}": cut(share) for share in (0.0, 0.003, 0.3, 0.9, 0.9999)},
    "header of noise": lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 64) + bytes(range(64)) * 3),
    "header longer than the file": lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + b"{}"),
    "giant shape": header(lambda d: first(d).update(shape=[2**30, 2**30])),
    "giant offsets": header(lambda d: first(d).update(shape=[2**40], data_offsets=[0, 2**42])),
    "negative shape": header(lambda d: first(d).update(shape=[-2, 3, 3, 3])),
    "overlapping tensors": header(lambda d: [e.update(data_offsets=[0, 216]) for n, e in d.items() if n[0] != "_"]),
    "unknown element type": header(lambda d: first(d).update(dtype="F4")),
    "half a byte an element": header(lambda d: first(d).update(dtype="F8_E8M0")),
    "whole numbers": cast(torch.int64),
    "complex numbers": cast(torch.complex64),
    "truth values": cast(torch.bool),
    "no tensor at all": tensors(lambda t: t.clear()),
    "one tensor missing": tensors(lambda t: t.pop(next(name for name in t if "lora_B" in name))),
    "one tensor too many": tensors(lambda t: t.update({"x.weight.lora_A": torch.zeros(1)})),
    "a layer outside the model": rename("3.", "..3."),
    "a path for a layer": rename("3.", "../../etc/passwd."),
    "a layer of python's": rename("3.", "__class__."),
    "config is a folder": lambda folder: ((folder / CONFIG).unlink(), (folder / CONFIG).mkdir()),
    "config cut": text(lambda t: t[: len(t) // 2]),
    "config of bytes": lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe\x00{"),
    "config of 5 MiB": text(lambda t: t + " " * (5 << 20)),
    "key twice": text(lambda t: t.replace('"r":', '"r": 1, "r":', 1)),
    "nested key twice": text(lambda t: t.replace('"r":', '"rank_pattern": {"3": 1, "3": 2}, "r":', 1)),
    "deep nesting": text(lambda t: t.replace('"r":', '"qkv_parts": ' + "[" * 50_000 + "]" * 50_000 + ', "r":', 1)),
    "rank NaN": text(lambda t: t.replace('"r": 2', '"r": NaN')),
    "alpha NaN": text(lambda t: t.replace('"lora_alpha": ', '"lora_alpha": NaN, "was": ')),
    "alpha infinite": text(lambda t: t.replace('"lora_alpha": ', '"lora_alpha": 1e999, "was": ')),
    "rank of 5000 digits": text(lambda t: t.replace('"r": 2', '"r": ' + "9" * 5000)),
    "rank of 12 digits": config(r=10**12),
    "rank 0": config(r=0),
    "rank below 0": config(r=-1),
    "rank a float": config(r=2.0),
    "rank a list": config(r=[2]),
    "rank pattern a number": config(rank_pattern=3),
    "rank pattern no expression": config(rank_pattern={"(": 2}),
    "targets no expression": config(target_modules="("),
    "targets a number": config(target_modules=7),
    "targets nothing": config(target_modules=[]),
    "trained modules nowhere": config(modules_to_save=["9"]),
    "trained modules a number": config(modules_to_save=1),
    "another method": config(peft_type="__import__"),
    "method a number": config(peft_type=3),
}
OWN_FILE: dict[str, Damage] = {
    "a module copied into another": rename("modules_to_save", "base_layer"),
    "schema true": config(schema_version=True),
    "schema a text": config(schema_version="1"),
    "a key of python's": config(__class__="x"),
    "dropout 2": config(lora_dropout=2.0),
}
STOCK_FILE: dict[str, Damage] = {
    "stock name twice": tensors(lambda t: t.update({"base_model.model.3.lora_A": torch.ones(2, 32)})),
    "stock table and matrix": tensors(lambda t: t.update({"base_model.model.3.lora_embedding_A": torch.ones(2, 32)})),
    "stock prefix missing": rename("base_model.model.3", "3"),
    "stock prefix twice": rename("base_model.model.3", "base_model.model.base_model.model.3"),
    "stock adapter name inside": rename("lora_A.weight", "lora_A.default.weight"),
    "stock rank above the weight's": config(r=10**9),
    "stock rank pattern above": config(rank_pattern={"3": 10**9}),
    "stock runs code": config(auto_mapping={"base_model_class": "os.system"}, loftq_config={"x": 1}),
    "stock megatron": config(layer_replication=[[0, 10**9]]),
}


def prints(model: nn.Module) -> tuple[object, ...]:
    """Everything of a model that loading could change."""
    state = copy.deepcopy(model.state_dict())
    trained = [(name, parameter.requires_grad, id(parameter)) for name, parameter in model.named_parameters()]
    return state, [(name, id(module), module.training) for name, module in model.named_modules()], trained


def same(first: tuple[object, ...], second: tuple[object, ...]) -> bool:
    (before, *others), (after, *rest) = first, second
    equal = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    return equal and others == rest


def check(folder: Path, model: nn.Module) -> None:
    """Loading must fail with an error of ours, allocate no more than the file's size, and change nothing."""
    before, size = prints(model), sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
        pytest.raises(SagaPeftError) as error,
    ):
        model.load_adapter(folder, "other") if isinstance(model, PeftModel) else PeftModel.from_pretrained(
            model, folder
        )
    assert same(before, prints(model))
    assert len(str(error.value)) < 2000
    assert sum(max(0, event.self_cpu_memory_usage) for event in profiler.key_averages()) <= size


FILES = {
    **{f"own, {name}": (False, damage) for name, damage in {**ANY_FILE, **OWN_FILE}.items()},
    **{f"stock, {name}": (True, damage) for name, damage in {**ANY_FILE, **STOCK_FILE}.items()},
}


@pytest.mark.parametrize(("stock", "damage"), FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapted"])
def test_a_hostile_file_is_refused_and_the_model_is_untouched(
    stock: bool, damage: Damage, adapted: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    write_adapter(folder, stock=stock)
    damage(folder)
    check(folder, get_peft_model(network(), FloraConfig(r=2)) if adapted else network())


@pytest.mark.parametrize("stock", [False, True], ids=["own", "stock"])
def test_the_undamaged_files_are_accepted(stock: bool, tmp_path: Path) -> None:
    write_adapter(tmp_path, stock=stock)
    model = PeftModel.from_pretrained(network(), tmp_path)
    assert model.active_adapters == ["default"]


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_link_that_leaves_the_folder_is_refused_and_the_hub_caches_are_not(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_adapter(folder, stock=False)
    link_away(name)(folder)
    check(folder, network())
    repository = tmp_path / "models--someone--adapter"
    snapshot, blobs = repository / "snapshots" / "0a1b", repository / "blobs"
    write_adapter(snapshot, stock=True)
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    assert PeftModel.from_pretrained(network(), snapshot).active_adapters == ["default"]
    (blobs / name).unlink()
    (blobs / name).symlink_to(tmp_path / "elsewhere" / name)
    check(snapshot, network())


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "a\\b", "a.b", "", " ", "a\n", "é", "\0", "__class__\n"]
)
def test_names_that_look_like_paths_are_refused(name: str, tmp_path: Path) -> None:
    write_adapter(tmp_path, stock=False)
    model = get_peft_model(network(), LoraConfig(r=2))
    before = prints(model)
    with pytest.raises(AdapterError, match="adapter name must be letters"):
        model.load_adapter(tmp_path, name)
    with pytest.raises(AdapterError, match="adapter name must be letters"):
        PeftModel.from_pretrained(network(), tmp_path, name)
    assert same(before, prints(model))


@pytest.mark.parametrize("options", [{"n_directions": 10**12}, {"r": 10**6}, {"warmup_steps": 0}, {"n_directions": -5}])
def test_giant_and_negative_sizes_of_directions_cost_nothing(options: dict[str, int], tmp_path: Path) -> None:
    get_peft_model(network(), LoraTsdConfig(r=2, n_directions=2)).save_pretrained(tmp_path)
    config(**options)(tmp_path)
    check(tmp_path, network())
