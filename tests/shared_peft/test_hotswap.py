"""Hot swap: the answers change, the compiled code and the tensors do not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from shared_peft import METHODS, FloraConfig, LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from shared_peft.errors import AdapterError, CheckpointError, SagaPeftError
from tests.shared_peft.cases import close, config_for, fill_randomly


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 6), nn.Linear(6, 3)).eval()


X = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def filled(config: object, seed: int) -> PeftModel:
    model = get_peft_model(network(), config)
    fill_randomly(model, seed)
    model.update_and_allocate(1)
    fill_randomly(model, seed + 1)
    return model.eval()


SMALLER = {
    "same shape": (LoraConfig(r=3), LoraConfig(r=3)),
    "smaller rank": (LoraConfig(r=3, lora_alpha=2.0), LoraConfig(r=1, lora_alpha=5.0)),
    "rslora": (LoraConfig(r=3), LoraConfig(r=2, use_rslora=True, lora_dropout=0.3)),
    "rank by layer": (LoraConfig(r=3), LoraConfig(r=3, rank_pattern={"0": 2}, alpha_pattern={"4": 9.0})),
    "pissa": (LoraConfig(r=3, init_lora_weights="pissa"), LoraConfig(r=2, init_lora_weights="pissa")),
    "flora": (FloraConfig(r=3, kernel_r=2), FloraConfig(r=2, kernel_r=1, scale=0.4)),
    "directions": (LoraTsdConfig(r=2, n_directions=3), LoraTsdConfig(r=2, n_directions=3, lora_alpha=3.0)),
}


@pytest.mark.parametrize(("attached", "stored"), SMALLER.values(), ids=SMALLER.keys())
@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_the_answers_are_the_stored_ones_and_nothing_is_compiled_again(
    attached: object, stored: object, mode: str, tmp_path: Path
) -> None:
    torch.compiler.reset()
    other = filled(stored, 5)
    other.save_pretrained(tmp_path / "other")
    model = filled(attached, 1)
    tensors = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    grad = torch.no_grad() if mode == "evaluation" else torch.enable_grad()
    with grad:
        before = compiled(X)
        frames = counter.frame_count
        model.hotswap_adapter(tmp_path / "other", "default")
        expected = other(X)
        assert not close(before, expected, 1e-3)
        assert close(compiled(X), expected, 1e-4)
        assert close(model(X), expected, 1e-4)
    assert frames > 0
    assert counter.frame_count == frames
    assert tensors == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "again")
    assert close(PeftModel.from_pretrained(network(), tmp_path / "again")(X), expected, 1e-4)


def test_a_stock_file_and_a_trained_module_are_swapped_in(tmp_path: Path) -> None:
    other = filled(LoraConfig(r=2, target_modules=["0", "3"], modules_to_save=["4"]), 5)
    other.save_pretrained(tmp_path, stock=True)
    model = filled(LoraConfig(r=3, target_modules=["0", "3"], modules_to_save=["4"]), 1)
    model.hotswap_adapter(tmp_path, "default")
    assert close(model(X), other(X), 1e-4)


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_takes_its_own_file(method: str, tmp_path: Path) -> None:
    def build(seed: int) -> PeftModel:
        model = get_peft_model(network(), config_for(method))
        fill_randomly(model, seed)
        model.update_and_allocate(2)
        fill_randomly(model, seed + 1)
        return model.eval()

    other, model = build(5), build(1)
    other.save_pretrained(tmp_path)
    model.hotswap_adapter(tmp_path, "default")
    assert close(model(X), other(X), 1e-4)


REFUSED: dict[str, tuple[object, Callable[[Path], None] | None, str]] = {
    "another method": (FloraConfig(r=2), None, "must be a lora adapter like 'default', got flora"),
    "larger rank": (LoraConfig(r=4, target_modules=["0", "3"]), None, r"0\.weight: .*at most shape \(3, .*got \(4, "),
    "fewer layers": (LoraConfig(r=2, target_modules=["0"]), None, r"must adapt 3\.weight, as 'default' does"),
    "more layers": (LoraConfig(r=2, target_modules=["0", "3", "4"]), None, r"no layer that 'default' does not, got 4"),
    "an extra head": (
        LoraConfig(r=2, target_modules=["0", "3"], modules_to_save=["4"]),
        None,
        r"unexpected: modules_to_save\.4",
    ),
    "a damaged file": (
        LoraConfig(r=2, target_modules=["0", "3"]),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x") and None,
        "must be safetensors",
    ),
}


@pytest.mark.parametrize(("stored", "damage", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_before_the_first_byte_changes(
    stored: object, damage: Callable[[Path], None] | None, message: str, tmp_path: Path
) -> None:
    filled(stored, 5).save_pretrained(tmp_path)
    if damage:
        damage(tmp_path)
    model = filled(LoraConfig(r=3, target_modules=["0", "3"]), 1)
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SagaPeftError, match=message):
        model.hotswap_adapter(tmp_path, "default")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_directions_of_another_number_are_refused(tmp_path: Path) -> None:
    filled(LoraTsdConfig(r=1, n_directions=3, warmup_steps=1), 5).save_pretrained(tmp_path)
    model = filled(LoraTsdConfig(r=3, n_directions=3, warmup_steps=1), 1)
    with pytest.raises(CheckpointError, match=r"must fit the attached tensors: the change of a LoraTsd"):
        model.hotswap_adapter(tmp_path, "default")


def test_a_merged_model_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    model = filled(LoraConfig(r=2), 1)
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="must be one of default, got 'x'"):
        model.hotswap_adapter(tmp_path, "x")
    model.merge_adapter()
    with pytest.raises(AdapterError, match="hotswap_adapter: needs an unmerged model"):
        model.hotswap_adapter(tmp_path, "default")
