"""Adapter files: whatever is wrong with them, the model stays as it was."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared_peft import LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from shared_peft.adapter_files import read_values
from shared_peft.errors import CheckpointError, ConfigError, SagaPeftError, UnknownNameError
from shared_peft.weights import load_checked, read_tensors, strip_prefixes, write_tensors
from tests.shared_peft.cases import fill_randomly

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def trained() -> PeftModel:
    model = get_peft_model(network(), LoraTsdConfig(r=2, warmup_steps=1, modules_to_save=["2"]))
    fill_randomly(model)
    model.update_and_allocate(1)
    fill_randomly(model, 7)
    return model


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return edit


def write_weights(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "adapter_model.safetensors").write_bytes(content) and None


class Attack:
    """An object whose unpickling would run code."""

    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


HUGE = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
DAMAGE = {
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "no config": lambda folder: (folder / "adapter_config.json").unlink(),
    "empty weights": write_weights(b""),
    "text as weights": write_weights(b"not tensors at all"),
    "pickle as weights": write_weights(pickle.dumps(Attack())),
    "giant header": write_weights(struct.pack("<Q", 2**62) + b"{}"),
    "giant tensor": write_weights(struct.pack("<Q", len(HUGE)) + HUGE),
    "config is no json": lambda folder: (folder / "adapter_config.json").write_text("{") and None,
    "config is a list": lambda folder: (folder / "adapter_config.json").write_text("[]") and None,
    "config is deeply nested": lambda folder: (folder / "adapter_config.json").write_text("[" * 100_000) and None,
    "unknown key": edit_config(speed=1),
    "unknown method": edit_config(peft_type="MAGIC"),
    "newer schema": edit_config(schema_version=99),
    "rank as text": edit_config(r="2"),
    "rank as bool": edit_config(r=True),
    "rank too large": edit_config(r=7),
    "another rank": edit_config(r=1),
    "targets elsewhere": edit_config(target_modules=["7"]),
    "tensor missing": edit_tensors(lambda t: t.__delitem__("0.weight.lora_A")),
    "tensor added": edit_tensors(lambda t: t.update({"evil": torch.zeros(3)})),
    "tensor reshaped": edit_tensors(lambda t: t.update({"0.weight.lora_B": torch.zeros(2, 8)})),
    "head of other classes": edit_tensors(lambda t: t.update({"modules_to_save.2.weight": torch.zeros(5, 8)})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapted"])
def test_a_damaged_adapter_is_refused_and_the_model_is_untouched(
    damage: Callable[[Path], None], adapted: bool, tmp_path: Path
) -> None:
    trained().save_pretrained(tmp_path)
    damage(tmp_path)
    model = trained() if adapted else network()
    before = model(X)
    structure = [(name, type(m)) for name, m in model.named_modules()]
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    with pytest.raises((CheckpointError, ConfigError, UnknownNameError, SagaPeftError)) as caught:
        model.load_adapter(tmp_path, "other") if adapted else PeftModel.from_pretrained(model, tmp_path)
    assert isinstance(caught.value, SagaPeftError)
    assert torch.equal(model(X), before)
    assert structure == [(name, type(m)) for name, m in model.named_modules()]
    assert trainable == [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_adapter_is_refused(cut: float, tmp_path: Path) -> None:
    trained().save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="adapter_model.safetensors: must be safetensors"):
        PeftModel.from_pretrained(network(), tmp_path)


def test_an_adapter_of_another_model_is_refused_with_the_shapes(tmp_path: Path) -> None:
    trained().save_pretrained(tmp_path)
    other = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(
        CheckpointError, match=r"of another shape: .*instead of.*Load it on the model it was trained on"
    ):
        PeftModel.from_pretrained(other, tmp_path)


def test_loading_beside_another_adapter_keeps_both(tmp_path: Path) -> None:
    model = trained()
    answer = model(X)
    model.save_pretrained(tmp_path)
    fill_randomly(model, 9)
    other = model(X)
    model.load_adapter(tmp_path, "stored")
    assert torch.equal(model(X), other)
    model.set_adapter("stored")
    assert torch.equal(model(X), answer)


def test_phase_and_directions_of_tsd_survive_storage(tmp_path: Path) -> None:
    model = trained()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert {name.rsplit(".", 1)[1] for name in stored if name.startswith("0.")} == {
        "lora_A",
        "lora_B",
        "dsigma",
        "left",
        "right",
        "sigma",
        "indices",
        "launched_at",
    }
    loaded = PeftModel.from_pretrained(network(), tmp_path)
    answer = loaded(X)
    loaded.update_and_allocate(50)
    assert torch.equal(loaded(X), answer)
    assert int(stored["0.weight.launched_at"]) == 1


def test_torch_files_load_without_running_code(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.weight": torch.ones(2)}}, tmp_path / "good.pth")
    assert torch.equal(strip_prefixes(read_tensors(tmp_path / "good.pth"))["weight"], torch.ones(2))
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(CheckpointError, match="weights_only=True"):
        read_tensors(tmp_path / "bad.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="must map names to tensors, got list"):
        read_tensors(tmp_path / "list.pth")


def test_a_checkpoint_of_another_model_is_refused_and_a_new_head_is_not(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", network().state_dict())
    tensors = read_tensors(tmp_path / "w.safetensors")
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    before = other[0].weight.detach().clone()
    with pytest.raises(CheckpointError, match=r"2 of another shape: .*2\.weight \(3, 8\) instead of \(5, 8\)"):
        load_checked(other, tensors, "w")
    assert torch.equal(other[0].weight, before)
    assert load_checked(other, tensors, "w", optional=("2.",)) == ("2.weight", "2.bias")
    assert torch.equal(other[0].weight, tensors["0.weight"])


def test_modules_trained_in_full_inside_each_other_are_stored_once_and_read_back(tmp_path: Path) -> None:
    def nested() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"body": nn.Linear(4, 4), "fc": nn.Sequential(nn.Linear(4, 3), nn.ModuleDict())})

    def tree() -> nn.Module:
        model = nested()
        model["fc"].add_module("fc", nn.Linear(3, 2))
        return model

    model = get_peft_model(tree(), LoraConfig(r=2, target_modules=["body"], modules_to_save=["fc"]))
    fill_randomly(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tree(), tmp_path)
    assert torch.equal(again.base_model["fc"].current.fc.weight, model.base_model["fc"].current.fc.weight)


@pytest.mark.parametrize("bytes_over", [0, 1])
def test_a_configuration_is_read_up_to_4_mib(bytes_over: int, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(b"{}".ljust((4 << 20) + bytes_over))
    if bytes_over:
        with pytest.raises(ConfigError, match="must be at most 4 MiB, got 4194305 bytes"):
            read_values(tmp_path)
    else:
        assert read_values(tmp_path) == {}
