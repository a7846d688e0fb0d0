"""Weight files that are broken or hostile: an error of ours that names the file, and no code of theirs runs."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from shared_peft.command import run_commands
from shared_peft.errors import CheckpointError
from vision.backbones import build_backbone
from vision.commands import COMMANDS

FORMATS = ("model.safetensors", "model.pt", "legacy.pth")


@pytest.fixture(scope="module")
def whole_files() -> dict[str, bytes]:
    """The same weights in three formats."""
    state = build_backbone("small_conv", 3).model.state_dict()
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, zipped)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    return dict(zip(FORMATS, (save(state), zipped.getvalue(), legacy.getvalue()), strict=True))


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut, flip, overwrite, repeat or take out a part of a file; headers, at both ends, are hit more often."""
    data = bytearray(content)
    kind = generator.integers(5)
    ends = np.concatenate(
        [generator.integers(0, min(3_000, len(data)), 4), len(data) - generator.integers(1, 2_000, 4)]
    )
    place = int(generator.choice(np.append(ends, generator.integers(0, len(data)))))
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        for at in generator.integers(0, len(data), 40):
            data[at] ^= 1 << int(generator.integers(8))
    length = int(generator.integers(1, 64))
    if kind == 2:
        data[place : place + length] = generator.integers(0, 256, length, dtype=np.uint8).tobytes()
    if kind == 3:
        data[place:place] = data[place : place + length]
    if kind == 4:
        del data[place : place + length]
    data[max(0, place - 1)] ^= 1 << int(generator.integers(8))
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_mutated_file_loads_or_is_refused_by_name(whole_files, tmp_path, name):
    generator = np.random.default_rng(0)
    path, said = tmp_path / name, []
    for _ in range(84):
        path.write_bytes(mutated(whole_files[name], generator))
        try:
            backbone = build_backbone("small_conv", 3, checkpoint=path)
        except CheckpointError as error:
            said.append(str(error))
        else:
            assert backbone.model(torch.zeros(1, 1, 8, 8)).shape == (1, 3)
    assert all(str(path) in message and "\n" not in message for message in said)
    assert len(said) > 20


class Spy:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["bare.pt", "zipped.pt", "nested.pt", "inside.pt"])
def test_code_in_a_pickle_never_runs(whole_files, tmp_path, name, capsys):
    trace, path = tmp_path / "it_ran", tmp_path / name
    if name == "bare.pt":
        path.write_bytes(pickle.dumps(Spy(trace)))
    elif name == "zipped.pt":
        torch.save(Spy(trace), path)
    elif name == "nested.pt":
        torch.save({"state_dict": {"fc.weight": torch.zeros(2), "fc.bias": Spy(trace)}}, path)
    else:
        with zipfile.ZipFile(io.BytesIO(whole_files["model.pt"])) as given, zipfile.ZipFile(path, "w") as made:
            for entry in given.namelist():
                hostile = entry.endswith("data.pkl")
                made.writestr(entry, pickle.dumps(Spy(trace), 2) if hostile else given.read(entry))
    words = (
        "finetune",
        "--backbone",
        "small_conv",
        "--data",
        "digits",
        "--checkpoint",
        path,
        "--out",
        tmp_path / "run",
    )
    assert run_commands("vision", COMMANDS, [str(word) for word in words]) == 2
    assert f"CheckpointError: {path}: must be safetensors, or a torch file" in capsys.readouterr().err
    assert not trace.exists()
    assert not (tmp_path / "run").exists()


STATE = build_backbone("small_conv", 3).model.state_dict()
STRANGE = {
    "nothing": {},
    "other shapes": {name: tensor[..., None] for name, tensor in STATE.items()},
    "transposed": {**STATE, "stage2.conv.weight": STATE["stage2.conv.weight"][:1]},
    "one too many": {**STATE, "stage9.conv.weight": torch.zeros(1)},
    "one missing": {name: tensor for name, tensor in STATE.items() if name != "stem.conv.weight"},
    "a list": [tensor for tensor in STATE.values()],
    "a tensor": torch.zeros(3),
    "numbers": {"fc.weight": 3},
    "numbers as names": {3: torch.zeros(3)},
    "none": None,
    "complex numbers": {name: tensor.to(torch.complex64) for name, tensor in STATE.items()},
    "whole numbers": {name: tensor.to(torch.int64) for name, tensor in STATE.items()},
    "sparse": {name: tensor.float().to_sparse() for name, tensor in STATE.items()},
    "without values": {name: tensor.to("meta") for name, tensor in STATE.items()},
    "not finite": {name: torch.full_like(tensor.float(), torch.nan) for name, tensor in STATE.items()},
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", STRANGE)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, name):
    path = tmp_path / "strange.pt"
    torch.save(STRANGE[name], path)
    with pytest.raises(CheckpointError, match=r"strange\.pt"):
        build_backbone("small_conv", 3, checkpoint=path)


def test_prefixes_of_wrappers_and_one_head_more_are_no_obstacle(tmp_path):
    for prefix in ("module.", "model.", "_orig_mod.module.", "module.model."):
        torch.save({"epoch": 3, "state_dict": {f"{prefix}{k}": v for k, v in STATE.items()}}, tmp_path / "w.pt")
        backbone = build_backbone("small_conv", 7, checkpoint=tmp_path / "w.pt")
        assert backbone.new_parameters == ("fc.weight", "fc.bias")
        assert torch.equal(backbone.model.stem.conv.weight, STATE["stem.conv.weight"])


def test_a_folder_without_weights_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: must be a weight file, got no such file"):
        build_backbone("small_conv", 3, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"w\.pt: must be a weight file, got no such file"):
        build_backbone("small_conv", 3, checkpoint=tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        ("resnet56_cifar10.th", "resnet20", r"\d+ unexpected: layer1\.3\.conv1\.weight"),
        ("resnet20_cifar10.th", "resnet56", r"\d+ missing: layer1\.3\.conv1\.weight"),
        ("vit_cifar10_timm.pth", "vit_cifar10_postnorm", r"missing: .*transformer\.layers\.0.*unexpected: .*blocks\.0"),
        ("vit_fashion_mnist_timm.pth", "vit_cifar10", r"of another shape: cls_token \(1, 1, 128\) instead of"),
    ],
)
def test_a_real_file_of_another_model_is_refused_with_the_names_that_differ(shared_root, file, model, message):
    with pytest.raises(CheckpointError, match=rf"{file}: names and shapes must be those of \w+, got .*{message}"):
        build_backbone(model, 10, checkpoint=shared_root / "weights" / file)
