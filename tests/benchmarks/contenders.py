"""What a user would pick to fine-tune a timm model: ours, Hugging Face peft, LyCORIS, two convolutions, everything.

Every contender turns a fresh model into one that trains about as many values as a budget allows.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft import FloraConfig, LoraConfig, count_parameters, get_peft_model, largest_rank
from shared_peft.inject import adapter_layers
from shared_peft.registry import Registry

Build = Callable[[Callable[[], nn.Module], int], nn.Module]
CONTENDERS: Registry[Build] = Registry("contender")
LARGEST_RANK = 64


@dataclass(frozen=True)
class Probe:
    """A constant added to the first layer's output, so that the frozen model is run backwards down to there."""

    value: Tensor

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + self.value


@CONTENDERS.register("frozen base")
def frozen_base(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """The lower limit of every adapter that reaches the first layer: forward, and backward of the activations."""
    model = make().eval().requires_grad_(False)
    value = nn.Parameter(torch.zeros(1))
    model.register_parameter("probe", value)
    first = next(m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    first.register_forward_hook(Probe(value))
    return model


@CONTENDERS.register("full fine-tuning")
def full(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """Every parameter trained, batch norms in training mode."""
    return make().train()


@CONTENDERS.register("ours LoRA")
def ours_lora(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """LoRA on every convolution and linear layer, depthwise ones too."""
    model = make().eval()
    return get_peft_model(model, largest_rank(model, lora_config(model), budget)).train()


@CONTENDERS.register("ours FLoRA")
def ours_flora(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """FLoRA on every convolution and linear layer, kernel rank 2."""
    model = make().eval()
    return get_peft_model(model, largest_rank(model, FloraConfig(target_modules=every_layer(model)), budget)).train()


@CONTENDERS.register("ours LoRA, layers peft can adapt")
def ours_on_their_layers(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """LoRA on the layers that the library beside it can adapt too."""
    model = make().eval()
    config = lora_config(model, names=dense_layers(model))
    return get_peft_model(model, largest_rank(model, config, budget)).train()


@CONTENDERS.register("two convolutions (FLoRA)")
def two_convolutions(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """FLoRA as its paper's code has it: the frozen layer, and a second one with dW."""
    model = ours_flora(make, budget)
    for _, layer in adapter_layers(model):
        layer.forward = TwoConvolutions(layer)  # type: ignore[method-assign]
    return model


@dataclass(frozen=True)
class TwoConvolutions:
    """W x + dW x."""

    layer: Any

    def __call__(self, x: Tensor) -> Tensor:
        base, method = self.layer.base_layer, self.layer.adapters["default"]["weight"]
        change = method.delta_weight(base.weight)
        if isinstance(base, nn.Linear):
            return base(x) + functional.linear(x, change)
        return base(x) + functional.conv2d(x, change, None, base.stride, base.padding, base.dilation, base.groups)


@CONTENDERS.register("peft LoRA")
def peft_lora(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """Hugging Face peft's LoRA on the layers it can adapt."""
    import peft  # noqa: PLC0415

    return _peft(make, budget, lambda rank, names: peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names))


@CONTENDERS.register("peft LoHa")
def peft_loha(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """Hugging Face peft's LoHa, effective decomposition of kernels."""
    import peft  # noqa: PLC0415

    def config(rank: int, names: list[str]) -> Any:
        return peft.LoHaConfig(r=rank, alpha=rank, target_modules=names, use_effective_conv2d=True)

    return _peft(make, budget, config)


@CONTENDERS.register("peft LoKr")
def peft_lokr(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """Hugging Face peft's LoKr, effective decomposition of kernels."""
    import peft  # noqa: PLC0415

    def config(rank: int, names: list[str]) -> Any:
        return peft.LoKrConfig(r=rank, alpha=rank, target_modules=names, use_effective_conv2d=True, decompose_both=True)

    return _peft(make, budget, config)


@CONTENDERS.register("LyCORIS LoCon, bypass")
def lycoris_bypass(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """LyCORIS with Tucker kernels, its chain beside the layer."""
    return _within(budget, lambda rank: _lycoris(make(), rank, bypass=True))


@CONTENDERS.register("LyCORIS LoCon, rebuild")
def lycoris_rebuild(make: Callable[[], nn.Module], budget: int) -> nn.Module:
    """LyCORIS with Tucker kernels, the weight built anew in each forward."""
    return _within(budget, lambda rank: _lycoris(make(), rank, bypass=False))


def every_layer(model: nn.Module) -> list[str]:
    """Return the names of all convolutions and linear layers."""
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def dense_layers(model: nn.Module) -> list[str]:
    """Return the names of those without groups: peft cannot merge grouped ones and refuses depthwise ones."""
    return [name for name in every_layer(model) if getattr(model.get_submodule(name), "groups", 1) == 1]


def lora_config(model: nn.Module, rank: int = 8, names: list[str] | None = None) -> LoraConfig:
    """Return LoRA on these layers, by default all; a small weight keeps ``rank``, or the most it allows."""
    names = every_layer(model) if names is None else names
    shapes: dict[str, Any] = {name: model.get_submodule(name).weight.shape for name in names}
    most = {name: min(shape[0], math.prod(shape[1:])) for name, shape in shapes.items()}
    small = {name.replace(".", r"\."): min(rank, largest) for name, largest in most.items() if largest < LARGEST_RANK}
    return LoraConfig(r=rank, target_modules=names, rank_pattern=small)


def default_budget(make: Callable[[], nn.Module]) -> int:
    """Return the number of values LoRA of rank 8 trains on every layer."""
    model = make()
    return count_parameters(model, lora_config(model))


def trained(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _within(budget: int, build: Callable[[int], nn.Module]) -> nn.Module:
    """Return the model of the largest rank within the budget, or of rank 1."""
    low, high = 1, LARGEST_RANK + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trained(build(middle)) <= budget else (low, middle)
    return build(low)


def _peft(make: Callable[[], nn.Module], budget: int, config: Callable[[int, list[str]], Any]) -> nn.Module:
    from peft import get_peft_model as get_theirs  # noqa: PLC0415

    def build(rank: int) -> nn.Module:
        model = make().eval()
        return get_theirs(model, config(rank, dense_layers(model))).eval()  # type: ignore[arg-type]  # as timm's BN must

    return _within(budget, build)


def _lycoris(model: nn.Module, rank: int, *, bypass: bool) -> nn.Module:
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris import LycorisNetwork, create_lycoris  # noqa: PLC0415

    LycorisNetwork.apply_preset({"enable_conv": True, "target_module": ["Conv2d", "Linear"], "target_name": [".*"]})
    options = {"algo": "locon", "conv_dim": rank, "conv_alpha": rank, "use_tucker": True, "bypass_mode": bypass}
    network = create_lycoris(model.eval().requires_grad_(False), 1.0, linear_dim=rank, linear_alpha=rank, **options)
    network.apply_to()
    model.add_module("lycoris", network)
    return model
