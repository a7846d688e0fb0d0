"""A loss or gradient that is not finite ends training with the step, the layer, and a checkpoint that goes on."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft.errors import TrainingError
from shared_peft.training import Batch, train
from shared_peft.training.train_config import TrainConfig
from tests.shared_peft.test_training import batches, config, folder_at, network, objective, weights

BAD_STEP = 7


class Spoilt(nn.Module):
    """Passes its input on; while ``on``, values or gradients become ``value``.

    Args:
        place: "forward" or "backward".
        value: what they become.
    """

    def __init__(self, place: str, value: float) -> None:
        super().__init__()
        self.place, self.value, self.on = place, value, False

    def forward(self, x: Tensor) -> Tensor:
        if self.on and self.place == "forward":
            x = x * self.value
        x = x + 0
        if self.on and self.place == "backward":
            x.register_hook(lambda gradient: gradient * self.value)
        return x


def spoilt_network(place: str, value: float) -> nn.Module:
    plain = network()
    return nn.Sequential(*plain[:2], Spoilt(place, value), *plain[2:])


def spoiling(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
    next(module for module in model.modules() if isinstance(module, Spoilt)).on = step == BAD_STEP
    return objective(model, batch, step)


def every_third(**changes) -> TrainConfig:
    return config(checkpoint_every=3, **changes)


@pytest.mark.parametrize("micros", [1, 3])
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("forward", math.nan, r"the loss must be finite, got nan, first in the output of 2 \(Spoilt\)\. "),
        ("forward", math.inf, r"the loss must be finite, got nan, first in the output of 2 \(Spoilt\)\. "),
        (
            "backward",
            math.nan,
            r"the gradient must be finite, got nan, first in the gradient at the output of 2 \(Spoilt\)\. ",
        ),
    ],
)
def test_the_error_names_step_layer_and_checkpoint_and_the_run_goes_on_from_it(
    place: str, value: float, said: str, micros: int, tmp_path: Path
) -> None:
    options = every_third(gradient_accumulation=micros)
    whole = spoilt_network(place, value)
    train(whole, objective, batches, options)
    checkpoint = rf"checkpoint is that of step 6 in {tmp_path}: once the cause is removed, --resume goes on from it\.$"
    with pytest.raises(TrainingError, match=f"step {BAD_STEP}: {said}.*{checkpoint}"):
        train(spoilt_network(place, value), spoiling, batches, options, folder=folder_at(tmp_path))
    cured = spoilt_network(place, value)
    train(cured, objective, batches, options, folder=folder_at(tmp_path, resume=True), resume=True)
    assert torch.equal(weights(cured), weights(whole))


def test_no_hook_stays_on_the_model(tmp_path: Path) -> None:
    model = spoilt_network("forward", math.nan)
    with pytest.raises(TrainingError):
        train(model, spoiling, batches, config())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(weight._backward_hooks for weight in model.parameters())


def test_data_that_are_not_finite_are_found_at_the_first_layers_input() -> None:
    def damaged(index: int) -> Batch:
        return [batches(index)[0].index_fill(0, torch.tensor([2]), math.nan if index == 2 else 1.0)]

    with pytest.raises(
        TrainingError, match=r"step 2: the loss .* first in the input of 0 \(Linear\)\. Look at the data"
    ):
        train(network(), objective, damaged, config(steps=4))


def test_a_loss_that_fails_by_itself_and_a_spoilt_weight_are_told_apart() -> None:
    def beyond(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        return objective(model, batch, step)[0].log() * math.inf, {}

    with pytest.raises(TrainingError, match="step 0: .* first in what is computed after the last layer"):
        train(network(), beyond, batches, config())
    spoilt = network()
    with torch.no_grad():
        spoilt[3].weight[1, 2] = math.inf
    with pytest.raises(TrainingError, match=r"first in 3\.weight, before the step"):
        train(spoilt, objective, batches, config())


def test_a_run_whose_last_checkpoint_is_its_end_tells_the_loss_it_ended_with(tmp_path: Path) -> None:
    first = train(network(), objective, batches, config(), folder=folder_at(tmp_path))
    again = train(network(), objective, batches, config(), folder=folder_at(tmp_path, resume=True), resume=True)
    assert (again.steps, again.done) == (0, 12)
    assert again.loss == first.loss
    assert math.isfinite(again.loss)


class Rooted(nn.Module):
    """Finite values whose derivative by the module's own weight is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.frozen = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.ones(6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.sqrt() * self.frozen


def test_a_gradient_that_only_a_weight_gets_is_told_by_the_weights_name() -> None:
    said = r"step 0: the gradient must be finite, got (nan|inf), first in the gradient of 1\.weight\. "
    with pytest.raises(TrainingError, match=said):
        train(nn.Sequential(nn.Linear(6, 6), Rooted()), objective, batches, config())
