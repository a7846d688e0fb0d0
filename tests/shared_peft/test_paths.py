"""The three paths of training: the same answer and the same gradients, and the cheapest is taken."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_peft import FloraConfig, LoraConfig, PeftModel, depthwise, factored, get_peft_model, pointwise
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers
from shared_peft.paths import PathCosts, builds, path_costs
from tests.shared_peft.cases import CASES, Case, config_for, fill_randomly
from tests.shared_peft.test_properties import convolutions

DENSE = [case for case in CASES if case.name.startswith(("linear", "conv")) and "same" not in case.name]


def set_path(model: nn.Module, path: str) -> None:
    for _, layer in adapter_layers(model):
        layer.path = path  # type: ignore[assignment]


def gradients(model: PeftModel, x: Tensor, path: str) -> list[Tensor]:
    """The output, the input's gradient and every adapter gradient along one path, in float64."""
    set_path(model, path)
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model.train()(x)
    output.sin().sum().backward()
    assert x.grad is not None
    return [output.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd"])
@given(drawn=convolutions())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_every_path_gives_the_same_gradients_for_any_convolution(method: str, drawn: tuple[nn.Module, Tensor]) -> None:
    layer, x = drawn
    model = get_peft_model(nn.Sequential(layer), config_for(method, r=1, kernel_r=1)).double()
    fill_randomly(model)
    expected = gradients(model, x.double(), "weight")
    for path in ("auto", "activation", "factored"):
        for got, wanted in zip(gradients(model, x.double(), path), expected, strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd"])
@pytest.mark.parametrize("shape", [(9,), (4, 9), (2, 3, 9), (2, 3, 2, 9)])
@pytest.mark.parametrize("builds", [False, True])
def test_every_path_gives_the_same_gradients_for_linear_layers(
    method: str,
    shape: tuple[int, ...],
    builds: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factored, "builds", lambda *_: builds)
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(9, 7)), config_for(method)).double()
    fill_randomly(model)
    x = torch.randn(shape, dtype=torch.float64)
    expected = gradients(model, x, "weight")
    for path in ("auto", "activation", "factored"):
        for got, wanted in zip(gradients(model, x, path), expected, strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("in_factor", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [((1, 1), (1, 1), (0, 0), (1, 1)), ((1, 1), (2, 2), (0, 0), (1, 1)), ((3, 2), (2, 1), (1, 0), (1, 2))],
)
def test_factored_convolution_passes_a_numerical_gradient_check(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    in_factor: bool,  # noqa: FBT001
    whole: bool,  # noqa: FBT001
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 6, 7), (5, 3, *kernel), (5,), (2, 2 if in_factor else 3, *kernel), (5, 2), (2, 3)]
    x, weight, bias, core, out_factor, mapped = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    geometry = factored.Geometry(stride, padding, dilation)

    def run(x: Tensor, bias: Tensor, core: Tensor, out_factor: Tensor, mapped: Tensor) -> Tensor:
        factors = Factors(core, out_factor, mapped if in_factor else None)
        return factored.convolution(x, weight, bias, factors, geometry, whole=whole)

    inputs = [tensor.requires_grad_() for tensor in (x, bias, core, out_factor, mapped)]
    assert torch.autograd.gradcheck(run, inputs)


@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(13, 17), st.integers(13, 17)),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_depthwise_weight_gradient_is_the_librarys(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 1, *kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    output = torch.conv2d(x, weight, None, stride, padding, dilation, 3)
    gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(gradient)
    got = depthwise.weight_gradient(x, gradient, kernel, stride, padding, dilation)
    torch.testing.assert_close(got, weight.grad)


@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolutions_of_large_maps_are_matrix_products_with_the_same_result(
    bias: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 15, 16)
    used = []
    original = pointwise.convolve
    monkeypatch.setattr("shared_peft.layer.CALLS", 0)  # these layers are tiny
    monkeypatch.setattr(pointwise, "convolve", lambda *args: used.append(1) or original(*args))
    for method, path in (("lora", "factored"), ("flora", "auto")):
        model = get_peft_model(nn.Sequential(nn.Conv2d(5, 7, 1, bias=bias)), config_for(method))
        fill_randomly(model)
        fast, plain = gradients(model, x, path), gradients(model, x, "weight")
        for got, wanted in zip(fast, plain, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert len(used) == 2


@pytest.mark.parametrize("kernel", [5, 7])
def test_depthwise_layers_with_large_kernels_train_with_the_fast_gradient(
    kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6)
    model = get_peft_model(nn.Sequential(layer), FloraConfig(r=2))
    fill_randomly(model)
    x = torch.randn(2, 6, 9, 9)
    used = []
    original = depthwise.weight_gradient
    monkeypatch.setattr("shared_peft.layer.CALLS", 0)  # these layers are tiny
    monkeypatch.setattr(depthwise, "weight_gradient", lambda *args: used.append(1) or original(*args))
    fast = gradients(model, x, "auto")
    plain = gradients(model, x, "weight")
    assert used == [1]
    for got, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_the_factored_path_keeps_no_second_copy_of_the_weights_for_the_backward() -> None:
    layer = nn.Linear(256, 256)
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=2))
    set_path(model, "factored")
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    x = torch.randn(4, 256)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(x)
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *model.parameters())}
    assert sum(size for pointer, size in kept.items() if pointer not in known) <= 2 * 2 * 256  # scaled factors


def test_a_trained_base_weight_or_a_hook_gets_its_due_on_every_path() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(64, 64)), LoraConfig(r=1)).train()
    model.base_model[0].base_layer.weight.requires_grad_()
    model.base_model[0].path = "factored"
    model(torch.randn(512, 64)).sum().backward()
    assert model.base_model[0].base_layer.weight.grad.abs().max() > 0
    model.base_model[0].base_layer.weight.requires_grad_(requires_grad=False)
    seen = []
    model.base_model[0].base_layer.register_forward_hook(lambda *_: seen.append(1))
    model.base_model[0].path = "auto"
    model(torch.randn(512, 64))
    assert seen == [1]


@pytest.mark.parametrize("case", DENSE, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_and_low_precision_agree_between_paths(case: Case, dtype: torch.dtype) -> None:
    model = get_peft_model(case.layer().to(dtype), config_for("lora", r=1)).train()
    fill_randomly(model)
    answers = {}
    for path in ("weight", "factored"):
        set_path(model, path)
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.float32):
            output = model(case.x().to(dtype))
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
        answers[path] = [output.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    for got, wanted in zip(answers["factored"], answers["weight"], strict=True):
        assert (got.float() - wanted.float()).norm() <= 0.03 * wanted.float().norm() + 1e-6


def test_the_cheapest_path_follows_ranks_and_positions() -> None:
    wide = Factors(torch.zeros(8, 512), torch.zeros(512, 8))
    assert path_costs((512, 512), wide, 4096, 4096).cheapest == "factored"
    assert builds((512, 512), 8, 4096)
    assert not builds((2048, 2048), 8, 64)
    grid = Factors(torch.zeros(8, 512, 3, 3), torch.zeros(512, 8))
    assert path_costs((512, 512, 3, 3), grid, 200, 200).cheapest == "activation"
    full = Factors(torch.zeros(16, 16), torch.zeros(16, 16))
    assert path_costs((16, 16), full, 4096, 4096).cheapest == "weight"
    assert "factored: cheapest of weight 3," in str(PathCosts(3e6, 2e6, 1e6))


def test_tiny_layers_are_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    original = factored.convolution
    monkeypatch.setattr(factored, "convolution", lambda *args, **options: used.append(1) or original(*args, **options))
    model = get_peft_model(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), LoraConfig(r=2)).train()
    for size, wanted in ((4, []), (64, [1])):
        model(torch.randn(32, 8, size, size))
        assert used == wanted


def test_the_model_takes_the_cheapest_path_and_says_so() -> None:
    model = get_peft_model(nn.Sequential(nn.Conv2d(512, 512, 3, padding=1)), LoraConfig(r=2)).train()
    for size, chosen in ((40, "factored"), (5, "activation")):
        model(torch.randn(2, 512, size, size))
        (status,) = model.get_layer_status()
        assert status.reason.startswith(f"{chosen}: cheapest of weight ")


@pytest.mark.parametrize("shape", [(6, 9), (2, 3, 9)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("built", [False, True])
def test_an_activation_may_write_over_the_output(
    shape: tuple[int, ...],
    bias: bool,  # noqa: FBT001
    built: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factored, "builds", lambda *_: built)
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(9, 7, bias=bias), nn.ReLU(inplace=True)), LoraConfig(r=2)).double()
    fill_randomly(model)
    x = torch.randn(shape, dtype=torch.float64)
    for got, wanted in zip(gradients(model, x, "factored"), gradients(model, x, "weight"), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("convolution", "size"), [(nn.Conv1d, (17,)), (nn.Conv2d, (17, 17)), (nn.Conv3d, (6, 6, 6))])
def test_an_activation_may_write_over_a_convolutions_output(
    convolution: type[nn.Module],
    size: tuple[int, ...],
    bias: bool,  # noqa: FBT001
    kernel: int,
    groups: int,
) -> None:
    torch.manual_seed(0)
    layer = convolution(4, 6, kernel, bias=bias, groups=groups)
    model = get_peft_model(nn.Sequential(layer, nn.ReLU(inplace=True)), LoraConfig(r=2)).double()
    fill_randomly(model)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    for got, wanted in zip(gradients(model, x, "factored"), gradients(model, x, "weight"), strict=True):
        torch.testing.assert_close(got, wanted)


class Block(nn.Module):
    """A norm, a layer, an activation and a layer, as in every transformer."""

    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=affine)
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)
        self.first, self.act, self.second = nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(self.norm(x))))


def kept_by(model: nn.Module, x: Tensor) -> int:
    """Bytes alive because of the graph of one forward, parameters and buffers not counted."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    pending, seen = [model(x).grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending += [before for before, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in (*saved, *getattr(node, "saved_tensors", ())):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_inputs_that_a_norm_or_gelu_made_are_made_again_and_not_kept(
    affine: bool,  # noqa: FBT001
    autocast: bool,  # noqa: FBT001
    built: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factored, "builds", lambda *_: built)
    torch.manual_seed(0)
    model = get_peft_model(Block(affine=affine), LoraConfig(r=2, target_modules=["first", "second"]))
    fill_randomly(model)
    x = torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        again, less = gradients(model, x, "factored"), kept_by(model, x.requires_grad_())
        monkeypatch.setattr(factored, "maker_of", lambda _: None)
        kept, more = gradients(model, x.detach(), "factored"), kept_by(model, x)
    for got, wanted in zip(again, kept, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert more - less >= 64 * (16 + 32) * (2 if autocast else 4)


def test_a_frozen_a_keeps_only_the_narrow_map() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 128, dtype=torch.float64)
    model = get_peft_model(nn.Sequential(nn.Linear(128, 128)), LoraConfig(r=2, freeze_A=True)).train().double()
    fill_randomly(model)
    expected = gradients(model, x, "weight")
    for got, wanted in zip(gradients(model, x, "factored"), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert kept_by(model, (x + 0).requires_grad_()) <= 8 * 2 * 64 + 8 * 2 * 2 * 128


WORKED_COSTS = [  # weight, factors, positions before and after, and the costs worked out by hand from the model's words
    ((6, 5), (2, 0), 10, 10, (4_160, 9_020 + 2e7, 2_420 + 2e7)),
    ((600, 500), (2, 0), 1000, 1000, (338_600_000, 90_200_000 + 2e7, 24_200_000 + 2e7)),
    ((6, 5, 3, 3), (2, 0), 20, 20, (37_060, 33_640 + 2e7, 33_560 + 2e7)),
    ((6, 5, 3, 3), (2, 2), 20, 20, (37_060, 24_520 + 2e7, 29_640 + 2e7)),
    ((6, 5, 1, 1), (2, 0), 20, 20, (4_900, 18_040 + 2e7, 4_920 + 2e7)),
]


@pytest.mark.parametrize(("shape", "ranks", "before", "after", "expected"), WORKED_COSTS)
def test_costs_are_those_worked_out_by_hand(
    shape: tuple[int, ...], ranks: tuple[int, int], before: int, after: int, expected: tuple[float, ...]
) -> None:
    rank, rank_in = ranks
    core = torch.zeros(rank, rank_in or shape[1], *shape[2:])
    factors = Factors(core, torch.zeros(shape[0], rank), torch.zeros(rank_in, shape[1]) if rank_in else None)
    costs = path_costs(shape, factors, before, after)
    assert (costs.weight, costs.activation, costs.factored) == expected


@pytest.mark.parametrize(("shape", "first"), [((6, 5), 21), ((60, 50), 208)])
def test_a_linear_layer_adds_products_in_place_until_the_changed_weight_is_cheaper(shape: tuple[int, ...], first: int):
    # of rank 2, both sizes added s, both multiplied p: 12 s n + 76 p <= 22 s n from n = 7.6 p / s on
    assert [builds(shape, 2, rows) for rows in (1, first - 1, first, 10 * first)] == [False, False, True, True]
