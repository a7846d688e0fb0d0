"""A folder may describe a network somewhat larger than its file, and no more, whatever it holds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft.described import load_described
from shared_peft.errors import CheckpointError

FILE = {"weight": torch.zeros(7)}
MORE_VALUES, MORE_TENSORS = 2 * 7 + (1 << 26), 4 * 1 + 1000
TOO_LARGE = "must be as large as the network that its folder describes"


class Described(nn.Module):
    """A network of parameters of given sizes; nothing of it takes memory."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        for index, size in enumerate(sizes):
            self.register_parameter(f"p{index}", nn.Parameter(torch.empty(size, device="meta")))


def outcome(sizes: list[int], tensors: dict[str, Tensor] | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_described(lambda: Described(sizes), tensors or FILE, Path("folder/model.safetensors"))
    return str(error.value)


@pytest.mark.parametrize("parts", [1, 3])
def test_twice_the_files_values_and_64_mi_more_are_let_through_to_the_comparison_of_names(parts: int) -> None:
    sizes = [MORE_VALUES // 3] * (parts - 1)
    rest = MORE_VALUES - sum(sizes)
    assert TOO_LARGE not in outcome([*sizes, rest])
    assert TOO_LARGE in outcome([*sizes, rest + 1])


def test_four_times_the_files_tensors_and_a_thousand_more_are_let_through_likewise() -> None:
    assert TOO_LARGE not in outcome([1] * MORE_TENSORS)
    assert TOO_LARGE in outcome([1] * (MORE_TENSORS + 1))


def test_a_network_as_described_is_filled() -> None:
    built = load_described(lambda: nn.Linear(2, 3), nn.Linear(2, 3).state_dict(), Path("folder/model.safetensors"))
    assert built.weight.shape == (3, 2)
