"""The randomised twin differs everywhere, keeps its scale, and is the same for the same seed."""

import pytest
import torch
from torch import nn

from deploy.randomise import randomised_copy
from tests.deploy.conftest import adapted_toy
from tests.deploy.toys import ConvNet, SequenceNet


def _examples():
    return torch.randn(9, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def _twin(model, seed=0):
    return randomised_copy(model, _examples(), generator=torch.Generator().manual_seed(seed))


def test_every_parameter_and_statistic_changes():
    model = ConvNet()
    before, after = model.state_dict(), _twin(model).state_dict()
    for name, tensor in before.items():
        if tensor.is_floating_point():
            assert not torch.equal(tensor, after[name]), name


def test_zero_initialised_parameters_count():
    model = ConvNet()
    nn.init.zeros_(model.norm.weight)
    assert float(_twin(model).norm.weight.std()) > 0.05


def test_spread_of_a_weight_is_kept():
    model = SequenceNet()
    twin = randomised_copy(model, torch.randn(4, 24, 6), generator=torch.Generator().manual_seed(1))
    assert float(twin.stem.weight.std()) == pytest.approx(float(model.stem.weight.detach().std()), rel=0.2)


def test_activations_keep_their_size_through_many_norms():
    layers = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(30)]
    twin = _twin(nn.Sequential(*layers))
    with torch.no_grad():
        assert 1e-2 < float(twin(_examples()).std()) < 1e2


def test_same_seed_gives_the_same_twin_and_leaves_the_model():
    model = adapted_toy("conv", "flora").model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, two, other = (_twin(model, seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_single_example_still_gives_finite_statistics():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    twin = randomised_copy(model, torch.ones(1, 3), generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(twin(torch.ones(2, 3))).all()
