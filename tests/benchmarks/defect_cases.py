"""What adapter libraries get wrong, each as a number that is 0 where the answer is right.

Adapters are LoRA of rank 2 with alpha 3, filled at random, in evaluation mode, unless said otherwise.
"""

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shared_peft.registry import Registry
from tests.benchmarks.defect_libraries import ALPHA, RANK, Library, Method
from tests.benchmarks.defect_models import ATTENTION, CIRCULAR, CONV, MERGED, TIED, Normed, Setting, timm_model

ROUNDING = 1e-5  # of the largest value, in float32


@dataclass(frozen=True)
class Measured:
    """A number and, if that is not enough, how to show it."""

    value: float
    text: str = ""


Measure = Callable[[Library], Measured]


@dataclass(frozen=True)
class Defect:
    """One thing that can go wrong.

    Args:
        measure: what a library makes of it.
        bound: the largest right number.
        refusal: whether an error is a right answer.
    """

    measure: Measure
    bound: float = ROUNDING
    refusal: bool = False


DEFECTS: Registry[Defect] = Registry("defect")


def defect(name: str, *, bound: float = ROUNDING, refusal: bool = False) -> Callable[[Measure], Measure]:
    """Return a decorator that files a measure as a defect."""

    def file(measure: Measure) -> Measure:
        DEFECTS.register(name)(Defect(measure, bound, refusal))
        return measure

    return file


def filled(library: Library, model: nn.Module, targets: Sequence[str], method: Method = "lora") -> nn.Module:
    """Attach an adapter and fill it at random."""
    adapted = library.adapt(model, list(targets), method).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trained(adapted):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapted


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def largest(x: Tensor) -> float:
    """Return the largest absolute value."""
    return float(x.detach().abs().max())


@torch.no_grad()
def merged_minus_adapted(setting: Setting, method: Method, library: Library) -> Measured:
    """Return how far the merged model is from the adapted one, as a share of the adapter's effect."""
    base, adapted = setting.model()(setting.x()), filled(library, setting.model(), setting.targets, method)
    before = adapted(setting.x())
    library.merge(adapted)
    after = adapted(setting.x())
    return Measured(largest(after - before) / max(largest(before - base), largest(after - base)))


for _name, _setting in MERGED.items():
    _measure = partial(merged_minus_adapted, _setting, "lora")
    defect(f"{_name}: merged - adapted", refusal=_name == TIED)(_measure)
defect("Hadamard product (LoHa, ours HiRA), alpha is not the rank: merged - adapted")(
    partial(merged_minus_adapted, CONV, "hadamard")
)


def start_minus_base(setting: Setting, library: Library) -> Measured:
    """Return how far a model is from its base when its adapter is new: the worst of a library's methods."""
    base = setting.model()(setting.x())
    shares = {name: largest(model(setting.x()) - base) / largest(base) for name, model in library.starts(setting.model)}
    worst = max(shares, key=lambda name: shares[name])
    return Measured(shares[worst], f"{shares[worst]:.2g} ({worst})" if shares[worst] > ROUNDING else "")


defect("3x3 convolution, a fresh adapter of every method: start - base")(partial(start_minus_base, CONV))
defect("3x3 convolution, circular padding, a fresh adapter of every method: start - base")(
    partial(start_minus_base, CIRCULAR)
)


@defect("MultiheadAttention, whole: change of out_proj's weight, as a multiple of alpha / r B A, - 1")
def output_projection(library: Library) -> Measured:
    """Return by how much the size of a merged change is off, measured along the product of its own factors."""
    model = ATTENTION.model()
    layer: nn.Linear = model.attention.out_proj  # type: ignore[union-attr, assignment]
    before = layer.weight.detach().clone()
    adapted = filled(library, model, ["attention"])
    factors = [p.detach().clone() for name, p in adapted.named_parameters() if "out_proj" in name and "lora" in name]
    down, up = factors  # A, B
    product = ALPHA / RANK * up @ down
    library.merge(adapted)
    multiple = float(((layer.weight.detach() - before) * product).sum() / product.square().sum())
    return Measured(abs(multiple - 1), f"{abs(multiple - 1):.2g} ({multiple:.3g} x)")


@defect("MultiheadAttention, whole: derivative by the factors - finite difference")
def derivative(library: Library) -> Measured:
    """Return the error of the derivative along the gradient, in float64, as a share of it."""
    step, x = 1e-4, ATTENTION.x().double()
    adapted = filled(library, ATTENTION.model().double(), ATTENTION.targets).double()
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    gradients = torch.autograd.grad((adapted(x) * weights).sum(), trained(adapted))
    claimed = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    values = []
    for move in (step, -2 * step):  # to one side, then to the other
        with torch.no_grad():
            for parameter, gradient in zip(trained(adapted), gradients, strict=True):
                parameter.add_(move * gradient / claimed)
            values.append(float((adapted(x) * weights).sum()))
    measured = (values[0] - values[1]) / (2 * step)
    return Measured(abs(claimed - measured) / abs(measured))


@defect('"all-linear" on convnextv2_atto, 1x1 convolutions included: share of the trained values missing')
def linear_maps(library: Library) -> Measured:
    """Return the share of the rank-2 adapter's values that a library leaves out."""
    model = timm_model("convnextv2_atto")
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and getattr(m, "groups", 1) == 1]
    sides = [m.weight.shape[:2] for m in layers if m.weight[0, 0].numel() == 1]
    expected = sum(RANK * (rows + columns) for rows, columns in sides)
    count = sum(parameter.numel() for parameter in trained(library.adapt(model, "all-linear")))
    return Measured(abs(expected - count) / expected, f"{abs(expected - count) / expected:.2g} ({count:,} values)")


@defect("layers called a.b and a_b: layers left out", bound=0)
def colliding_names(library: Library) -> Measured:
    """Return how many of two layers get no adapter."""
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(8, 8)}), "a_b": nn.Linear(8, 8)})
    count = sum(parameter.numel() for parameter in trained(library.adapt(model, ["a.b", "a_b"])))
    return Measured(2 - count / (RANK * 16))


@torch.no_grad()
def stepped(library: Library) -> tuple[Normed, nn.Module, Tensor]:
    """Run an adapted model with a batch norm in training mode, as training does; return it, its wrapper and input."""
    torch.manual_seed(0)
    model, x = Normed(), 3 + torch.randn(4, 6, 6, 6)
    adapted = filled(library, model, ["conv"]).train()
    for _ in range(3):
        adapted(x)
    return model, adapted.eval(), x


@defect("frozen BatchNorm: drift of its running mean in three training steps", bound=0)
def batch_norm_drift(library: Library) -> Measured:
    """Return the drift, in standard deviations of the untrained norm (1)."""
    return Measured(largest(stepped(library)[0].norm.running_mean))  # type: ignore[arg-type]  # it starts at 0


@defect("frozen BatchNorm: answers of the adapter, saved after training and loaded into the base, - before")
@torch.no_grad()
def batch_norm_reload(library: Library) -> Measured:
    """Return the difference as a share of the answer."""
    _, adapted, x = stepped(library)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        library.save(adapted, Path(folder))
        loaded = library.load(Normed(), Path(folder))
    return Measured(largest(loaded(x) - adapted(x)) / largest(adapted(x)))


def unmerged(dtype: torch.dtype, library: Library) -> Measured:
    """Return the share of a weight's values that differ after merging and unmerging."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).to(dtype)
    before = layer.weight.detach().clone()
    library.merge_and_unmerge(filled(library, nn.Sequential(layer), ["0"]))
    share = float((layer.weight != before).float().mean())
    return Measured(share, f"{share:.2g} (by up to {largest(layer.weight.double() - before):.1e})" if share else "")


defect("unmerged on the CPU, float32: share of the weight's values that changed", bound=0)(
    partial(unmerged, torch.float32)
)
defect("unmerged on the CPU, bfloat16: share of the weight's values that changed", bound=0)(
    partial(unmerged, torch.bfloat16)
)


@defect("an adapter whose second layer is NaN, merged with the check for it: change of the first layer", bound=0)
def half_merged(library: Library) -> Measured:
    """Return how much of the base a refused merge leaves changed; infinite if the merge is not refused."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    first: Tensor = model[0].weight  # type: ignore[assignment]
    before = first.detach().clone()
    adapted = filled(library, model, ["0", "1"])
    with torch.no_grad():
        trained(adapted)[-1].fill_(math.nan)
    try:
        library.merge(adapted)
    except Exception:
        return Measured(largest(first - before))
    return Measured(math.inf, "NaN merged")


@torch.no_grad()
def edited_file(edit: Callable[[dict[str, Tensor]], None], library: Library) -> Measured:
    """Return how far a model is off after loading a damaged file, as a share of the adapted answer."""
    torch.manual_seed(0)
    setting = Setting(Normed, ("conv",), (2, 6, 5, 5))
    adapted = filled(library, setting.model(), setting.targets)
    with tempfile.TemporaryDirectory() as folder:
        path = library.save(adapted, Path(folder))
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loaded = library.load(setting.model(), Path(folder))
    share = largest(loaded(setting.x()) - adapted(setting.x())) / largest(adapted(setting.x()))
    return Measured(share, f"{share:.2g} (with a warning)" if told else "")


def without_last(tensors: dict[str, Tensor]) -> None:
    """Lose a tensor."""
    del tensors[max(name for name in tensors if "alpha" not in name)]


def renamed(tensors: dict[str, Tensor]) -> None:
    """Rename every tensor."""
    for name in list(tensors):
        tensors[f"other.{name}"] = tensors.pop(name)


defect("a file without one of its tensors: answers, if it loads, - before", refusal=True)(
    partial(edited_file, without_last)
)
defect("a file of another model's tensors: answers, if it loads, - before", refusal=True)(partial(edited_file, renamed))


@defect("a file with a tensor of another shape, refused: tensors left in the model", bound=0)
def left_over(library: Library) -> Measured:
    """Return how many tensors a refused file leaves in the model."""
    model = Normed()
    tensors_before = len(model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = library.save(library.adapt(Normed(), ["conv"]), Path(folder))
        tensors = load_file(path)
        save_file({name: t if "alpha" in name else torch.zeros(3, 3) for name, t in tensors.items()}, path)
        try:
            library.load(model, Path(folder))
        except Exception:
            return Measured(len(model.state_dict()) - tensors_before)
    return Measured(math.inf, "loaded")


@defect("MultiheadAttention, one adapter for each sample of a batch: answers - each alone")
@torch.no_grad()
def per_sample(library: Library) -> Measured:
    """Return the difference as a share of the answers."""
    x, adapted = ATTENTION.x(), filled(library, ATTENTION.model(), ATTENTION.targets)
    expected = torch.stack([adapted(x)[0], ATTENTION.model()(x)[1]])
    return Measured(largest(adapted(x, adapter_names=["default", "__base__"]) - expected) / largest(expected))


@defect("MultiheadAttention, torch.export: answers of the program - of the model")
@torch.no_grad()
def exported(library: Library) -> Measured:
    """Return the difference as a share of the answers."""
    x, adapted = ATTENTION.x(), filled(library, ATTENTION.model(), ATTENTION.targets)
    expected = adapted(x)
    return Measured(largest(torch.export.export(adapted, (x,)).module()(x) - expected) / largest(expected))
