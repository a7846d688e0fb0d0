"""One small model of every timm architecture family, found through timm's own registry, and what each must do."""

import copy
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared_peft import AdapterConfig, LoraConfig, get_peft_model, make_config
from shared_peft.inject import adapter_layers, plan
from vision.torchvision_ops import declare_missing_operators

declare_missing_operators()
import timm  # noqa: E402
from timm.models import get_pretrained_cfg, is_model  # noqa: E402
from timm.models._registry import _model_to_module  # noqa: E402

CLASSES = 10
IMAGE_SIZES = (64, 96, 128, 160, 192, 224, 256, 384)
_SMALL_WORDS = ("test", "zepto", "atto", "femto", "pico", "nano", "xxxs", "xxs", "xs", "tiny", "mini", "small")
_LARGE = 8_000_000  # parameters above which shorter models are looked for
_SHORTER: tuple[dict[str, Any], ...] = ({"depth": 2}, {"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)})
METHOD_FIELDS: dict[str, dict[str, object]] = {
    "lora": {"r": 2, "lora_alpha": 3.0},
    "flora": {"r": 2, "kernel_r": 1, "scale": 0.7},
    "lora_tsd": {"r": 2, "lora_alpha": 3.0, "n_directions": 2, "warmup_steps": 1},
}


@dataclass(frozen=True)
class Built:
    """A family's model, in eval mode and with random weights.

    Args:
        model: the model.
        name: its name in timm.
        size: sides of its square input [px].
        parameters: number of its parameters.
    """

    model: nn.Module
    name: str
    size: int
    parameters: int

    def images(self, count: int = 2, seed: int = 1) -> Tensor:
        """Random images, (count, 3, size, size)."""
        return torch.randn(count, 3, self.size, self.size, generator=torch.Generator().manual_seed(seed))


class FamilyError(Exception):
    """What a family's model did not do."""


def families() -> dict[str, list[str]]:
    """Return the names of every timm family's models, the likely smallest first, by family (timm's module)."""
    found: dict[str, list[str]] = {}
    for name in timm.list_models():
        if is_model(name):
            found.setdefault(_model_to_module[name], []).append(name)
    return {family: sorted(names, key=_likely_size) for family, names in sorted(found.items())}


def build_smallest(family: str, *, tries: int = 3, largest: int = 150_000_000) -> Built:
    """Build the smallest of a family's first models that can be built, at the smallest input it takes.

    A large one is built with fewer blocks where its constructor lets one say so.

    Args:
        family: name of a timm module.
        tries: how many of its models to look at, by name.
        largest: most parameters that a model may have.

    Raises:
        FamilyError: none can be built.
    """
    reasons: list[str] = []
    for count, name, options in sorted(_sizes(families()[family][:tries]), key=lambda size: size[:2]):
        if largest < count < math.inf:
            reasons.append(f"{name}: {count / 1e6:.0f} million parameters")
            continue
        for size in (*IMAGE_SIZES, None):
            try:
                return build(name, size, options)
            except Exception as error:  # whatever a model raises for an image size it does not take
                reasons.append(f"{name} at {size}: {first_line(error)}")
    raise FamilyError("; ".join(reasons[-3:]))


def build(name: str, size: int | None = None, options: dict[str, Any] | None = None) -> Built:
    """Build a model for square images of ``size`` pixels (None: its own) and see it answer."""
    config = get_pretrained_cfg(name)
    assert config is not None
    resized = {} if size is None or not config.fixed_input_size else {"img_size": size}
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES, **(options or {}), **resized).eval()
    _wake(model, size or config.input_size[-1])
    built = Built(model, name, size or config.input_size[-1], sum(p.numel() for p in model.parameters()))
    with torch.no_grad():
        answer = model(built.images())
    if not isinstance(answer, Tensor) or answer.shape != (2, CLASSES) or not torch.isfinite(answer).all():
        raise FamilyError("does not answer with one finite row an image")
    return built


@torch.no_grad()
def _wake(model: nn.Module, size: int) -> None:
    """Make random weights pass their input on, as trained ones do, so that every layer counts for the answer.

    Weights and scales that start at almost zero get small values, and batch norms the statistics of random images.
    """
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if not name.endswith("bias") and parameter.abs().max() < 1e-3:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        model.train()(torch.randn(8, 3, size, size, generator=generator))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    model.eval()


def _sizes(names: list[str]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Yield (parameters, name, options) of each way to build a model; infinitely many where counting failed."""
    for name in names:
        whole = _count_without_memory(name, {})
        yield whole, name, {}
        if whole > _LARGE:
            for options in _SHORTER:
                count = _count_without_memory(name, options)
                if count < whole:
                    yield count, name, options
                    break


def _count_without_memory(name: str, options: dict[str, Any]) -> float:
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
    except Exception:  # whatever a constructor raises for unknown options, or for weights without memory
        return math.inf
    return sum(parameter.numel() for parameter in model.parameters())


def config_of(method: str, model: nn.Module) -> AdapterConfig:
    """Return a small configuration of a method on all layers, rank 1 where a weight (to one channel) has no more."""
    weights = plan(model, LoraConfig(r=1))
    narrow = {re.escape(planned.layer): 1 for planned in weights if min(planned.spec.matrix_shape) < 2}
    return make_config(method, target_modules="all", rank_pattern=narrow, **METHOD_FIELDS[method])


def check_family(built: Built, method: str) -> tuple[nn.Module, dict[str, float]]:
    """Adapt a model on all its layers, train one step, fill the adapter, merge it.

    Returns:
        The merged model, and numbers: layers adapted, share of them whose adapter moved, loss, change of the answer by
        the filled adapter and difference of merged from adapted, both relative to the answer's largest value.

    Raises:
        FamilyError: the first promise that does not hold.
    """
    model, x = copy.deepcopy(built.model), built.images()
    before = {name: tensor.clone() for name, tensor in _tensors(model)}
    with torch.no_grad():
        base = model.requires_grad_(False)(x)  # some of torch's kernels round otherwise where they could be trained
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ranks lowered")
        adapted = get_peft_model(model, config_of(method, model), generator=torch.Generator().manual_seed(2))
    layers = dict(adapter_layers(adapted.base_model))
    with torch.no_grad():
        _require(torch.equal(adapted(x), base), "the start must equal the base")
    loss, moved = _train_one_step(adapted, x)
    _require(math.isfinite(loss), f"the loss must be finite, got {loss}")
    _require(moved > 0.5, f"the step must move the adapter of most layers, moved {moved:.0%}")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    answer = adapted.eval()(x).detach()  # with gradients on, so that chains run where they pay
    scale = float(answer.abs().max())
    plain = adapted.merge_and_unload(safe_merge=True)
    with torch.no_grad():
        difference = float((plain(x) - answer).abs().max()) / scale
    changed = float((answer - base).abs().max()) / scale
    _require(difference < 1e-3, f"merged must equal adapted, differs by {difference:.1e} of the answer")
    _require(changed > 1e-3, f"the filled adapter must change the answer, changed {changed:.1e}")
    kept = [name for name, _ in _tensors(plain) if not any(name.startswith(f"{layer}.") for layer in layers)]
    after = dict(_tensors(plain))
    _require(all(torch.equal(after[n], before[n]) for n in kept), "what is not adapted must stay bit for bit")
    return plain, {"layers": len(layers), "moved": moved, "loss": loss, "changed": changed, "difference": difference}


def _train_one_step(adapted: nn.Module, x: Tensor) -> tuple[float, float]:
    """Train one step; return the loss and the share of layers whose adapter moved; the base keeps every bit."""
    frozen = {n: t.clone() for n, t in adapted.state_dict().items() if ".adapters." not in n}
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.0)
    torch.manual_seed(0)  # drop path and dropout
    answer = adapted.train()(x)
    loss = nn.functional.cross_entropy(answer, torch.arange(len(x)) % CLASSES)
    loss.backward()
    optimizer.step()
    adapted.update_and_allocate(1, optimizer)  # type: ignore[operator]
    after = adapted.state_dict()
    drifted = [n for n, t in frozen.items() if not torch.equal(t, after[n])]
    _require(not drifted, f"the base must keep every bit, changed {', '.join(drifted[:3])}")
    moved = {n.split(".adapters.")[0] for n, p in trained.items() if not torch.equal(p, start[n])}
    return float(loss.detach()), len(moved) / len({n.split(".adapters.")[0] for n in trained})


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters and buffers, shared ones under their first name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _require(holds: bool, what: str) -> None:  # noqa: FBT001
    if not holds:
        raise FamilyError(what)


def _likely_size(name: str) -> tuple[int, int, str]:
    """Order names by the first word that speaks of a small size, then by their numbers' size."""
    words = re.split(r"[_\d]+", name)
    rank = next((i for i, word in enumerate(_SMALL_WORDS) if word in words), len(_SMALL_WORDS))
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return rank, max(numbers, default=0), name


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
