"""One export per toy network and adapter method, shared by all deploy tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deploy import export_model
from shared_peft import METHODS, get_peft_model
from shared_peft.training import TrainedModel
from tests.deploy.toys import ConvNet, SequenceNet, trained_toy

NETWORKS = {"conv": ConvNet, "sequence": SequenceNet}


def adapted_toy(network: str, method: str) -> TrainedModel:
    """Return a toy with an adapter on every layer, its zero-initialised parts filled."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    base = NETWORKS[network]
    config = METHODS.get(method).config_class(r=2, target_modules="all")
    model = get_peft_model(base(), config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return trained_toy(model, base)


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory) -> Callable[[str, str], tuple[TrainedModel, Path]]:
    """Return (trained model, bundle) of a toy and a method; each pair is exported once."""
    made: dict[tuple[str, str], tuple[TrainedModel, Path]] = {}

    def make(network: str = "conv", method: str = "flora") -> tuple[TrainedModel, Path]:
        if (network, method) not in made:
            trained, out = adapted_toy(network, method), tmp_path_factory.mktemp(f"{network}-{method}") / "bundle"
            export_model(trained, out)
            made[network, method] = trained, out
        return made[network, method]

    return make


@pytest.fixture
def bundle_copy(bundle_of, tmp_path) -> Path:
    """A bundle of its own, to damage."""
    import shutil

    return Path(shutil.copytree(bundle_of()[1], tmp_path / "copy"))
