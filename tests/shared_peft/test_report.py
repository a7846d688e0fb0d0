"""The report's numbers against the formulas and against torch's own counter on real runs."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shared_peft import FloraConfig, LoraConfig, PeftModel, get_peft_model
from tests.shared_peft.cases import fill_randomly
from tests.shared_peft.small_models import IMAGES, resnet, vit


def counted(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of a real run, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2


def toy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 5)
    ).eval()


X = torch.randn(6, 3, 8, 8)


def test_the_numbers_are_those_of_the_formulas() -> None:
    model = get_peft_model(toy(), LoraConfig(r=2), "a")
    model.add_adapter("b", FloraConfig(r=2, kernel_r=1, target_modules=["3"]))
    report = model.get_layer_report(X)
    dense, depthwise, linear = report.rows
    assert [row.layer for row in report.rows] == ["0", "1", "3"]
    assert dense.weight_shapes == {"weight": (8, 3, 3, 3)}
    assert dense.parameters == {"a": 2 * 27 + 8 * 2}
    assert linear.parameters == {"a": 2 * 32 + 5 * 2, "b": 2 * 2 + 2 * 5 + 2 * 32}
    assert dense.macs == 6 * 4 * 4 * 8 * 27
    assert dense.extra_macs == 6 * 4 * 4 * 2 * (27 + 8)
    assert depthwise.macs == 6 * 2 * 2 * 8 * 9
    assert depthwise.extra_macs == 8 * 2 * 9  # W + dW is built once, whatever the batch
    assert linear.macs == 6 * 32 * 5
    assert linear.extra_macs == 6 * 2 * (32 + 5)
    assert report.total.macs == dense.macs + depthwise.macs + linear.macs
    assert report.total.extra_macs == dense.extra_macs + depthwise.extra_macs + linear.extra_macs
    assert report.total.parameters["a"] == model.get_nb_trainable_parameters()[0]


def test_totals_are_what_torch_counts_on_real_runs_of_timm_models() -> None:
    for build in (vit, resnet):
        model = get_peft_model(build(), LoraConfig(r=2))
        report = model.get_layer_report(IMAGES)
        assert report.total.macs == counted(build(), IMAGES) > sum(row.macs for row in report.rows) * 0.5
        for layer in model.base_model.modules():
            if hasattr(layer, "path"):
                layer.path = "activation"
        assert report.total.macs + report.total.extra_macs == counted(model, IMAGES)
        assert report.total.extra_macs == sum(row.extra_macs for row in report.rows)


def test_merged_and_disabled_adapters_cost_nothing() -> None:
    model = get_peft_model(toy(), LoraConfig(r=2))
    with model.disable_adapter():
        assert model.get_layer_report(X).total.extra_macs == 0
    model.merge_adapter()
    report = model.get_layer_report(X)
    assert report.total.extra_macs == 0
    assert report.total.macs == counted(toy(), X)


def test_the_model_is_left_as_it_was_and_nothing_runs_on_values() -> None:
    model = get_peft_model(toy(), LoraConfig(r=2))
    fill_randomly(model)
    before = model(X)
    with torch.no_grad():
        kept = model(X)
        model.get_layer_report(X)
        assert torch.equal(model(X), kept)
    assert torch.equal(model(X), before)
    assert not any(buffer.is_meta for buffer in model.state_dict().values())


def test_a_model_whose_forward_needs_values_is_counted_on_a_real_run() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor, times: int = 1) -> Tensor:
            for _ in range(times if float(x.sum()) > 0 else 0):
                x = self.linear(x)
            return x

    model = get_peft_model(Choosing(), LoraConfig(r=1))
    report = model.get_layer_report(torch.ones(3, 4), times=2)
    assert report.rows[0].macs == 2 * 3 * 4 * 4


def test_the_table_names_every_layer_and_the_total() -> None:
    model: PeftModel = get_peft_model(toy(), LoraConfig(r=2))
    lines = str(model.get_layer_report(X)).splitlines()
    assert lines[0].split() == ["layer", "weight", "parameters", "MACs", "extra", "MACs"]
    assert lines[1].split() == ["0", "weight", "8x3x3x3", "default", "70", "20,736", "6,720"]
    assert lines[-1].split()[0] == "total"
    assert len(lines) == 5
