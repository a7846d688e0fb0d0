"""What users of Hugging Face peft rely on with models of their own, as behaviours of every method on every model here.

The cases follow peft 0.21's own list for custom models. Left out, because nothing here corresponds to them:
quantised and 8-bit layers, multi-backend dispatch, trainable token indices and prompt methods (no such layers or
methods), ``target_parameters`` (weights are reached by layer), ``get_peft_config`` of transformers models, and
``layers_to_transform`` (a regular expression says the same). Merging several adapters one after the other is refused
here, because their sum is merged at once.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import (
    METHODS,
    AdapterConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from shared_peft.errors import MergeError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly

MERGEABLE = [name for name in METHODS.names() if METHODS.get(name).mergeable]


class Custom(nn.Module):
    """An input layer, a norm, a second layer of the same kind and a linear head.

    Args:
        first: builds the layer that meets the input.
        second: builds the one after it.
        features: channels that reach the head.
    """

    def __init__(self, first: Callable[[], nn.Module], second: Callable[[], nn.Module], features: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = first(), second()
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        while x.dim() > 2:
            x = x.mean(-1)
        return self.head(self.norm(x))


class Sentences(nn.Module):
    """Embedded words, their mean and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Embedding(20, 6)
        self.second = nn.Embedding(20, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.first(x) * self.second(x)).mean(1))


class Attending(nn.Module):
    """Two attention modules and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.MultiheadAttention(6, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for attention in (self.first, self.second):
            x = x + attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))


def pair(layer: Callable[..., nn.Module], *options: int, groups: int = 1) -> Callable[[], nn.Module]:
    return lambda: Custom(lambda: layer(4, 6, *options, groups=groups), lambda: layer(6, 6, *options, groups=groups), 6)


def noise(*shape: int) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (lambda: Custom(lambda: nn.Linear(4, 6), lambda: nn.Linear(6, 6, bias=False), 6), noise(4)),
    "embeddings": (Sentences, torch.randint(20, (5, 7), generator=torch.Generator().manual_seed(1))),
    "conv1d": (pair(nn.Conv1d, 3), noise(4, 9)),
    "conv2d": (pair(nn.Conv2d, 3), noise(4, 7, 8)),
    "conv2d 1x1": (pair(nn.Conv2d, 1), noise(4, 3, 3)),
    "conv2d grouped": (pair(nn.Conv2d, 3, groups=2), noise(4, 7, 8)),
    "conv3d": (pair(nn.Conv3d, 2), noise(4, 4, 4, 4)),
    "conv transposed": (pair(nn.ConvTranspose2d, 3, 2), noise(4, 3, 3)),
    "attention": (Attending, noise(5, 6)),
}
every_model = pytest.mark.parametrize("name", MODELS)
every_method = pytest.mark.parametrize("method", MERGEABLE)
few_methods = pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd", "ia3"])
pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered:UserWarning")


def base_of(name: str) -> nn.Module:
    return MODELS[name][0]().eval()


def config(method: str, **fields: object) -> AdapterConfig:
    return config_for(method, **{"target_modules": ["first", "second"], **fields})


def adapted(name: str, method: str, **fields: object) -> PeftModel:
    generator = torch.Generator().manual_seed(3)
    return get_peft_model(base_of(name), config(method, **fields), generator=generator)


def train(model: PeftModel, x: Tensor, steps: int = 2) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    model.train()
    for _ in range(steps):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@every_method
@every_model
def test_a_step_updates_the_adapter_and_nothing_else(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if ".adapters.default." in n
    }
    before = values(model)
    train(model, x)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".adapters.default." in n for n in changed)
    assert {n.split(".")[1] for n in changed} == {"first", "second"}
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n.endswith("bias"))


@every_method
@every_model
def test_a_disabled_adapter_answers_like_the_base_and_an_enabled_one_does_not(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    base = base_of(name).requires_grad_(False)(x)
    assert close(model(x), base)
    fill_randomly(model)
    answer = model(x)
    assert not close(answer, base, 1e-4)
    with model.disable_adapter():
        assert torch.equal(model(x), base)
        with model.disable_adapter():
            assert torch.equal(model(x), base)
        assert torch.equal(model(x), base)
    assert torch.equal(model(x), answer)


@every_method
@every_model
def test_merging_unmerging_and_unloading_give_the_three_known_answers(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    fill_randomly(model)
    answer, base = model(x), base_of(name).requires_grad_(False)(x)
    model.merge_adapter(safe_merge=True)
    assert close(model(x), answer)
    model.unmerge_adapter()
    assert torch.equal(model(x), answer)
    assert close(copy.deepcopy(model).merge_and_unload()(x), answer)
    unloaded = model.unload()
    assert torch.equal(unloaded(x), base)
    assert unloaded.state_dict().keys() == base_of(name).state_dict().keys()


@few_methods
@every_model
def test_safe_merge_refuses_what_is_not_finite_and_leaves_every_weight(name: str, method: str) -> None:
    model = adapted(name, method)
    fill_randomly(model)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if ".second.adapters." in n).fill_(float("nan"))
    before = {n: p for n, p in values(model).items() if ".adapters." not in n}
    with pytest.raises(MergeError, match=r"second\.\w+(\.\w+)?: the merged weight must be finite"):
        model.merge_adapter(safe_merge=True)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


@few_methods
@every_model
def test_adapters_are_added_switched_and_deleted(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    fill_randomly(model, 1)
    first = model(x)
    model.add_adapter("other", config(method, r=1, kernel_r=1))
    assert torch.equal(model(x), first)
    model.set_adapter("other")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if ".adapters.other." in n}
    fill_randomly(model, 2)
    second = model(x)
    assert not close(first, second, 1e-4)
    model.set_adapter("default")
    assert torch.equal(model(x), first)
    model.delete_adapter("default")
    assert model.active_adapters == ["other"]
    assert torch.equal(model(x), second)
    assert not any(".adapters.default." in n for n in model.state_dict())


@few_methods
@every_model
def test_only_one_of_two_adapters_learns(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    model.add_adapter("other", config(method))
    model.set_adapter("other")
    before = values(model)
    train(model, x)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".adapters.other." in n for n in changed)


@few_methods
@every_model
def test_saving_and_loading_again_and_again_changes_nothing(name: str, method: str, tmp_path: Path) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    fill_randomly(model)
    answer = model(x)
    for turn in range(3):
        model.save_pretrained(tmp_path / str(turn))
        model = PeftModel.from_pretrained(base_of(name), tmp_path / str(turn))
        assert torch.equal(model(x), answer)
    files = [(tmp_path / str(turn) / "adapter_model.safetensors").read_bytes() for turn in range(3)]
    assert files[0] == files[1] == files[2]


@every_method
def test_a_loaded_adapter_joins_others_and_is_not_trained_until_it_is_set(method: str, tmp_path: Path) -> None:
    x, model = MODELS["conv2d"][1], adapted("conv2d", method)
    fill_randomly(model)
    answer = model(x)
    model.save_pretrained(tmp_path)
    other = adapted("conv2d", method)
    other.load_adapter(tmp_path, "loaded")
    assert close(other(x), base_of("conv2d")(x))
    assert not any(p.requires_grad for n, p in other.named_parameters() if ".adapters.loaded." in n)
    other.set_adapter("loaded")
    assert torch.equal(other(x), answer)


@few_methods
@every_model
def test_tensors_are_named_by_layer_slot_and_value_and_fit_a_fresh_model(name: str, method: str) -> None:
    x, model = MODELS[name][1], adapted(name, method)
    fill_randomly(model)
    stored = get_peft_model_state_dict(model)
    slots = r"weight|q|k|v|out_proj"
    assert all(re.fullmatch(rf"(first|second)\.({slots})\.[\w.]+", key) for key in stored)
    assert not any("base_layer" in key or "default" in key for key in stored)
    fresh = adapted(name, method)
    set_peft_model_state_dict(fresh, stored)
    assert torch.equal(fresh(x), model(x))


@few_methods
@every_model
def test_modules_to_save_learn_beside_the_adapter_and_come_back_from_disk(
    name: str, method: str, tmp_path: Path
) -> None:
    x, model = MODELS[name][1], adapted(name, method, modules_to_save=["head"])
    original = base_of(name).head.weight
    train(model, x)
    assert not close(model.head.weight, original, 1e-4)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base_of(name), tmp_path)
    assert torch.equal(loaded(x), model(x))
    with loaded.disable_adapter():
        assert torch.equal(loaded(x), base_of(name).requires_grad_(False)(x))
    plain = loaded.merge_and_unload()
    assert type(plain.head) is nn.Linear
    assert close(plain(x), model(x))


@pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd"])
def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(method: str) -> None:
    first, second = (values(adapted("conv2d", method)) for _ in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)
    generator = torch.Generator().manual_seed(4)
    other = values(get_peft_model(base_of("conv2d"), config(method), generator=generator))
    drawn = {n for n in first if n.endswith("lora_A") or ".mode_factors." in n}
    assert {n for n in first if not torch.equal(first[n], other[n])} == drawn
    assert drawn


def test_rank_and_alpha_patterns_reach_the_layer_they_name_alone() -> None:
    model = adapted("mlp", "lora", r=2, lora_alpha=4.0, rank_pattern={"first": 3}, alpha_pattern={"^second": 10.0})
    found = {
        name: (m.lora_A.shape[0], m.scale)
        for name, layer in adapter_layers(model.base_model)
        for _, m in layer.methods("default")
    }
    assert found == {"first": (3, pytest.approx(4 / 3)), "second": (2, pytest.approx(5.0))}


@every_method
def test_two_active_adapters_merge_as_their_sum(method: str) -> None:
    x, model = MODELS["conv2d"][1], adapted("conv2d", method)
    fill_randomly(model, 1)
    model.add_adapter("other", config(method))
    model.set_adapter(["default", "other"])
    fill_randomly(model, 2)
    answer = model(x)
    model.merge_adapter()
    assert close(model(x), answer)
    with pytest.raises(MergeError, match="must not be merged already"):
        model.merge_adapter(["other"])


@few_methods
@every_model
def test_half_precision_layers_take_a_step_and_keep_their_type(name: str, method: str) -> None:
    x = MODELS[name][1]
    x = x.bfloat16() if x.is_floating_point() else x
    model = get_peft_model(base_of(name).bfloat16(), config(method))
    train(model, x, 1)
    assert model(x).dtype == torch.bfloat16
    assert {p.dtype for n, p in model.named_parameters() if ".adapters." in n} == {torch.float32}
    assert model.merge_and_unload()(x).dtype == torch.bfloat16


@every_model
def test_the_parameters_asked_for_are_the_ones_counted(name: str) -> None:
    model = adapted(name, "lora")
    trained, total = model.get_nb_trainable_parameters()
    specs = [layer.spec(slot).shape for _, layer in adapter_layers(model.base_model) for slot in layer.slots]
    assert trained == sum(2 * (shape[0] + torch.Size(shape[1:]).numel()) for shape in specs)
    assert total == trained + sum(p.numel() for p in base_of(name).parameters())
