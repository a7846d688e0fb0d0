"""Fixtures every test package shares: where the real data lies."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the models are small: a second thread only waits


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder of real data and weights: $SAGA_PEFT_SHARED, or ../shared beside the checkout."""
    root = Path(os.environ.get("SAGA_PEFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "README.md").is_file():
        pytest.skip(f"real data not found: {root} (set SAGA_PEFT_SHARED)")
    return root
