"""Every registered export target: it answers like PyTorch at any batch size, or names the extra it needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.program import export_program, merged_copy
from deploy.target import EXPORT_TARGETS
from shared_peft import get_peft_model, make_config
from shared_peft.errors import MissingPackageError
from tests.deploy.toys import ConvNet
from tests.shared_peft.cases import fill_randomly

SHAPE, OPSET, TOLERANCE = (3, 12, 12), 20, 1e-4


def what_is_missing(target: str) -> str:
    """Return the error of a target whose packages are not installed, or ""."""
    try:
        EXPORT_TARGETS.get(target)().check_packages()
    except MissingPackageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("target", EXPORT_TARGETS.names())
def test_a_written_file_answers_like_the_model_or_the_missing_extra_is_named(target: str, tmp_path: Path) -> None:
    if missing := what_is_missing(target):
        assert f"saga-peft[{target}]" in missing
        return
    torch.manual_seed(0)
    model = get_peft_model(ConvNet(), make_config("lora", r=2, target_modules=["stem.0", "depthwise", "head"]))
    with torch.no_grad():
        fill_randomly(model)
    network = merged_copy(model)
    writer = EXPORT_TARGETS.get(target)()
    path = tmp_path / writer.file_name
    assert writer.write(export_program(network, SHAPE), path, input_name="x", opset=OPSET).nodes > 0
    run = writer.open(path, threads=1)
    for batch in (1, 4, 7):
        images = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            assert np.abs(run(images.numpy()) - network(images).numpy()).max() < TOLERANCE
    assert [entry.name for entry in tmp_path.iterdir()] == [writer.file_name]
