"""Torch files that ask for code, memory or other files: read as weights, and as what a killed run goes on from."""

from pathlib import Path

import pytest
import torch
from torch import nn

from imu_saga.encoder import load_encoder
from imu_saga.input_spec import InputSpec
from imu_saga.recording import IMU_CHANNELS
from shared_peft.errors import CheckpointError, TrainingError
from shared_peft.training.checkpoint import CHECKPOINT, restore
from shared_peft.weights import read_tensors
from tests.security.guard import CANARY, outcome
from tests.security.pickles import CALLS, FILES, WRAPPERS, call
from vision.backbones import build_backbone

SPEC = InputSpec(IMU_CHANNELS, 20.0, 120)
READERS = {
    "vision": ("weights.pth", lambda path: build_backbone("small_conv", 3, checkpoint=path)),
    "imu_saga": ("weights.pt", lambda path: load_encoder(path, "limu", {}, SPEC)),
    "resumed": (CHECKPOINT, lambda path: restore(path, nn.Linear(2, 2), {})),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, on the old formats
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", CALLS)
def test_no_call_in_a_pickle_is_made(name: str, wrapper: str, reader: str, tmp_path: Path) -> None:
    file, read = READERS[reader]
    path = tmp_path / "in" / file
    path.parent.mkdir()
    path.write_bytes(WRAPPERS[wrapper](call(name, tmp_path / CANARY), tmp_path))
    assert outcome(lambda: read(path), path.parent) == "refused"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
def test_a_torch_file_takes_no_more_memory_than_it_is_large(name: str, reader: str, tmp_path: Path) -> None:
    file, read = READERS[reader]
    path = tmp_path / "in" / file
    path.parent.mkdir()
    path.write_bytes(FILES[name](tmp_path))
    assert outcome(lambda: read(path), path.parent) == "refused"


def test_packed_files_are_told_from_those_torch_writes(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(FILES["packed_bomb"](tmp_path))
    with pytest.raises(
        CheckpointError, match=r"weights\.pt: must be safetensors, .* got it is packed, or its parts overlap"
    ):
        read_tensors(path)
    torch.save({"w": torch.ones(3)}, path)
    assert torch.equal(read_tensors(path)["w"], torch.ones(3))


def test_a_hostile_checkpoint_of_a_killed_run_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(WRAPPERS["zip"](call("system", tmp_path / CANARY), tmp_path))
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: must be a checkpoint .* Remove it and restart"):
        restore(path, nn.Linear(2, 2), {})
