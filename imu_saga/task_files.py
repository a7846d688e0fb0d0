"""Task adapters on disk: fine-tuned runs of one frozen encoder read as a set, and the folder that packs them (ours).

A packed folder holds the encoder once, as a checkpoint that `finetune` can start from (model.json, model.safetensors),
tasks.json, and for each task a folder with its adapter and its readout: standardisation and head.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imu_saga.card import WEIGHTS, ModelCard, read_card
from imu_saga.encoder import Encoder, build_encoder
from imu_saga.heads import Classifier
from imu_saga.trained import ADAPTER, FINETUNE_KIND, RESULTS, build_base, tensors_sha256
from shared_peft import AdapterConfig, storage
from shared_peft.atomic import appearing_folder
from shared_peft.config import from_json, read_json
from shared_peft.described import load_described
from shared_peft.errors import AdapterError, CheckpointError, ConfigError, RunError
from shared_peft.training import RunFolder
from shared_peft.weights import read_tensors

PACK, READOUT = "tasks.json", "readout.safetensors"
ENCODER = "encoder."  # prefix of the encoder's tensors in a file of weights
NO_ADAPTER = "head"  # the method of a task that reads the frozen encoder itself
SCHEMA_VERSION = 1
ONE_BASE = "Fine-tune all of them from one --checkpoint, with --method head or an adapter, on windows cut alike"


@dataclass(frozen=True, eq=False)
class StoredTask:
    """One task as read from disk.

    Args:
        classes: class names in the order of the logits.
        readout: tensors of the standardisation and the head, by the Classifier's names.
        config: configuration of the adapter; None where the task reads the frozen encoder itself.
        adapter: tensors of the adapter by file name.
    """

    classes: tuple[str, ...]
    readout: dict[str, Tensor]
    config: AdapterConfig | None
    adapter: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class StoredTasks:
    """The tasks of one frozen encoder.

    Args:
        card: the encoder and its input.
        base: the frozen encoder's tensors, by its own names.
        tasks: by name, at least one.
    """

    card: ModelCard
    base: dict[str, Tensor]
    tasks: dict[str, StoredTask]


@dataclass(frozen=True)
class PackedTask:
    """What tasks.json says of one task: its classes, and its adapter's method or "head"."""

    classes: tuple[str, ...]
    method: str


@dataclass(frozen=True)
class PackList:
    """The content of tasks.json.

    Args:
        base_sha256: of the frozen encoder's tensors, see `tensors_sha256`.
        tasks: by name.
        schema_version: of this format.
    """

    base_sha256: str
    tasks: dict[str, PackedTask]
    schema_version: int = SCHEMA_VERSION


def read_runs(runs: Mapping[str, Path]) -> StoredTasks:
    """Read fine-tuned runs that stand on one frozen encoder.

    Args:
        runs: run folder by task name.

    Raises:
        ConfigError, AdapterError: no run, or a name that cannot be a task's.
        RunError: no finished fine-tuning run in a folder.
        CheckpointError: runs of another encoder, rate, window, channels or gravity, or damaged weights.
    """
    check_names(runs, "tasks")
    tasks, base, before = {}, {}, {}
    for name, path in runs.items():
        card, classifier, task = _read_run(path)
        facts = _facts(card, tensors_sha256(classifier.encoder.state_dict()))
        for what, (where, value) in before.items():
            if facts[what] != value:
                raise CheckpointError(path, f"must have the {what} of {where}, {value}", facts[what], ONE_BASE)
        before = before or {what: (path, value) for what, value in facts.items()}
        base = base or classifier.encoder.state_dict()
        tasks[name] = task
    return StoredTasks(replace(card, classes=(), statistics=False), base, tasks)


def read_pack(folder: Path) -> StoredTasks:
    """Read a packed folder.

    Raises:
        RunError: no packed folder there, or one of a newer format.
        ConfigError, AdapterError: what tasks.json says cannot be.
        CheckpointError: a file is missing, damaged or of another pack.
    """
    listed = _read_list(folder)
    check_names(listed.tasks, folder / PACK)
    card, file = read_card(folder), folder / WEIGHTS
    holder = load_described(
        lambda: nn.ModuleDict({"encoder": build_encoder(card.encoder, card.input, card.options)}),
        read_tensors(file),
        file,
    )
    encoder: Any = holder["encoder"]
    base, tasks = encoder.state_dict(), {}
    if (mark := tensors_sha256(base)) != listed.base_sha256:
        must = f"must hold the encoder with sha256 {listed.base_sha256[:12]} that the tasks were trained on"
        raise CheckpointError(file, must, mark[:12], "Pack the runs again")
    for name, packed in listed.tasks.items():
        config, adapter = None, {}
        if packed.method != NO_ADAPTER:
            config, adapter = storage.read(Classifier(encoder, len(packed.classes)), folder / name)
        readout = read_tensors(folder / name / READOUT)
        tasks[name] = StoredTask(packed.classes, readout, config, adapter)
    return StoredTasks(card, base, tasks)


def reads_statistics(readout: Mapping[str, Tensor], encoder: Encoder) -> bool:
    """Return whether a stored readout is that of a head that sees the window's statistics beside the tokens."""
    mean = readout.get("standardise.mean")
    return mean is not None and mean.numel() != 2 * encoder.width


def readout_of(classifier: Classifier) -> nn.ModuleDict:
    """Return what a task has beside its encoder: standardisation and head, under the Classifier's names."""
    return nn.ModuleDict({"standardise": classifier.standardise, "head": classifier.head})


def check_names(names: Iterable[str], where: object) -> None:
    """Check the names of tasks, which are folders' and adapters' names, too.

    Raises:
        ConfigError: no task.
        AdapterError: a name that cannot be one.
    """
    if not list(names):
        raise ConfigError(where, "must hold at least one task", "none", "Name the folders of fine-tuned runs")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise AdapterError(where, "a task's name must be letters, digits, '_' or '-'", repr(name), "Rename it")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to write into; it becomes ``path`` if the block succeeds.

    Args:
        path: the folder to make; nothing, or an empty folder.

    Yields:
        The temporary folder. It is removed if the block raises.

    Raises:
        RunError: there is something already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(path, "must be a new or empty folder", "other files", "Choose another --out")
    with appearing_folder(path) as temporary:
        yield temporary


def _read_run(path: Path) -> tuple[ModelCard, Classifier, StoredTask]:
    """Return a run's card, its classifier without the adapter, and its task."""
    folder = RunFolder(path)
    folder.describe(FINETUNE_KIND)
    folder.read(RESULTS)
    card = read_card(path)
    classifier = load_described(lambda: build_base(card), read_tensors(path / WEIGHTS), path / WEIGHTS)
    config, adapter = None, {}
    if (path / ADAPTER).is_dir():
        stored, tensors = storage.read(classifier, path / ADAPTER)
        config = replace(stored, modules_to_save=None)  # the head is of the readout
        adapter = {key: tensor for key, tensor in tensors.items() if not key.startswith(storage.SAVED_PREFIX)}
    return card, classifier, StoredTask(card.classes, readout_of(classifier).state_dict(), config, adapter)


def _facts(card: ModelCard, mark: str) -> dict[str, Any]:
    """Return what runs must have in common, in words."""
    return {
        "rate": f"{card.input.rate_hz:g} Hz",
        "window": f"{card.input.samples} samples",
        "channels": ", ".join(card.input.channels),
        "gravity": card.input.gravity,
        "encoder": f"{card.encoder} {card.options}",
        "frozen encoder": f"sha256 {mark[:12]}",
    }


def _read_list(folder: Path) -> PackList:
    path = folder / PACK
    if not path.is_file():
        fix = "Pack runs with `python -m imu_saga tasks RUN RUN --out FOLDER`"
        raise RunError(folder, f"must hold {PACK}", "no such file", fix)
    values: Any = read_json(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(path, f"schema_version must be {SCHEMA_VERSION}", version, "Use the version that wrote it")
    return from_json(PackList, values, str(path))
