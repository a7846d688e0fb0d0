"""One of each thing that is read from disk: how a sound one is made, and what reading it, and using it, means."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from deploy import BundleRunner, export_model
from deploy.bundle_files import MANIFEST, SUMS
from deploy.multi import export_multi
from imu_saga.card import read_card
from imu_saga.encoder import load_encoder
from imu_saga.store.store import WindowStore
from imu_saga.task_adapters import TaskAdapters
from imu_saga.trained import load_run as load_imu_run
from shared_peft import LoraConfig, get_peft_model
from shared_peft.atomic import sha256_of
from shared_peft.errors import SagaPeftError
from tests.deploy.conftest import adapted_toy
from tests.deploy.multi.conftest import conv_task, imu_runs
from tests.imu_saga.planted import people
from tests.imu_saga.store.test_store import written
from tests.shared_peft.cases import fill_randomly
from vision.backbones import build_backbone
from vision.finetune import FinetuneConfig, finetune
from vision.trained import load_run as load_vision_run


@dataclass(frozen=True)
class Artefact:
    """A kind of folder that may come from a stranger.

    Args:
        make: writes a sound one to a path that does not exist.
        load: reads it, and uses what it read.
        seal: makes sums and lists fit what was changed, as a careful forger would.
    """

    make: Callable[[Path], object]
    load: Callable[[Path], object]
    seal: Callable[[Path], object] = lambda folder: None


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 6)).eval()


def make_adapter(folder: Path, *, stock: bool = False) -> None:
    options = {} if stock else {"target_modules": "[03]", "rank_pattern": {"[3]": 1}}
    model = get_peft_model(network(), LoraConfig(r=2, modules_to_save=["1"], **options))
    fill_randomly(model)
    model.save_pretrained(folder, stock=stock)


def load_adapter(folder: Path) -> None:
    """Load it beside another adapter; where it is refused, the model must be what it was, bit by bit."""
    model = get_peft_model(network(), LoraConfig(r=1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_adapter(folder, "other")
    except SagaPeftError:
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        raise
    model(torch.zeros(2, 3, 4, 4))


def make_vision_run(folder: Path) -> None:
    weights = folder.parent / "weights.safetensors"
    save_file(build_backbone("small_conv", 10).model.state_dict(), weights)
    finetune(FinetuneConfig("small_conv", "digits", folder, weights, shots=2, epochs=1, adapter=("r=2",)))
    weights.unlink()


def use_run(run) -> None:
    assert run.model(run.examples).shape == (len(run.examples), len(run.classes))


def make_tasks(folder: Path) -> None:
    TaskAdapters.load(imu_runs(folder.parent / "runs", seed=0)).save(folder)


def use_tasks(folder: Path) -> None:
    tasks = TaskAdapters.read(folder)
    assert all(tasks.method(name) for name in tasks.names)


def make_imu_run(folder: Path) -> None:
    runs = imu_runs(folder.parent / "runs", seed=0)
    shutil.copytree(runs["activity"], folder)


def make_pretrained(folder: Path) -> None:
    imu_runs(folder.parent / "runs", seed=0)
    shutil.copytree(folder.parent / "runs" / "pre", folder)


def use_pretrained(folder: Path) -> None:
    load_encoder(folder, "saga", {}, read_card(folder).input)


def use_store(folder: Path) -> None:
    store = WindowStore.open(folder)
    store.window_set(np.arange(min(len(store), 4)))


def use_bundle(folder: Path) -> None:
    BundleRunner(folder, threads=1).check_golden()


def seal_bundle(folder: Path) -> None:
    """Let manifest and sums list the files as they are; a manifest that cannot be read is only summed."""
    manifest = folder / MANIFEST
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in (MANIFEST, SUMS)]
    try:
        values = json.loads(manifest.read_text())
        for path in files:
            if path.name in values["files"]:
                values["files"][path.name] = {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
        manifest.write_text(json.dumps(values))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    listed = [path for path in (*files, manifest) if path.is_file()]
    (folder / SUMS).write_text("".join(f"{sha256_of(path)}  {path.name}\n" for path in listed))


ARTEFACTS: dict[str, Artefact] = {
    "adapter": Artefact(make_adapter, load_adapter),
    "stock adapter": Artefact(lambda folder: make_adapter(folder, stock=True), load_adapter),
    "vision run": Artefact(make_vision_run, lambda folder: use_run(load_vision_run(folder))),
    "imu run": Artefact(make_imu_run, lambda folder: use_run(load_imu_run(folder))),
    "imu checkpoint": Artefact(make_pretrained, use_pretrained),
    "imu tasks": Artefact(make_tasks, use_tasks),
    "store": Artefact(lambda folder: written(folder, people(subjects=3, samples=41)), use_store),
    "bundle": Artefact(lambda folder: export_model(adapted_toy("conv", "lora"), folder), use_bundle, seal_bundle),
    "bundle of tasks": Artefact(
        lambda folder: export_multi("ab" * 32, [conv_task("small", 2, 5), conv_task("large", 4, 3)], folder),
        use_bundle,
        seal_bundle,
    ),
}
