"""Write a bundle with many adapters: base graph, adapter files, gates; it appears whole or not at all."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from deploy.bundle import DEFAULT_OPSET, check_trained, new_folder
from deploy.bundle_files import CARD, PARITY, describe_files
from deploy.layout import SCHEMA_VERSION, InputEntry, VariantEntry, write_manifest
from deploy.local_paths import refuse_local_paths, without_paths
from deploy.multi.adapter_file import ADAPTER_VERSION, SUFFIX
from deploy.multi.card import multi_card
from deploy.multi.golden import write_golden
from deploy.multi.graph import WrittenGraph, insert_inputs, write_graph
from deploy.multi.inputs import own_inputs, same_forms, tensors_of
from deploy.multi.int8 import INT8, BaseFiles, make_int8
from deploy.multi.manifest import MultiManifest, TaskEntry, verify_multi
from deploy.multi.parity import TaskParity, measure_tasks, write_adapters
from deploy.multi.task import Task
from deploy.multi.tasks import check_same_input
from deploy.randomise import randomised_copy
from deploy.target import OUTPUT_NAME
from deploy.targets import EXPORT_TARGETS
from shared_peft.atomic import write_json, write_text
from shared_peft.config import to_json
from shared_peft.training import package_versions

MODEL_FILE = "model.onnx"
_SEED = 20


def export_multi(
    base_sha256: str,
    tasks: Sequence[Task],
    out: Path,
    *,
    opset: int = DEFAULT_OPSET,
    int8: Literal["auto", "none"] = "none",
    max_drop: float = 1.0,
    secrets: tuple[Path, ...] = (),
    report: Callable[[str], None] = lambda line: None,
) -> MultiManifest:
    """Export one base with the adapters of several tasks.

    Args:
        base_sha256: of the base's frozen tensors.
        tasks: on this base, at least one; see `load_tasks`.
        out: the bundle's folder; must not exist.
        opset: ONNX operator set version; 18 to 20 is what phones know.
        int8: "auto" writes the base in int8, too, which the same adapter files fit.
        max_drop: largest loss of a task's accuracy in int8 [percentage points].
        secrets: paths that no file may hold, besides those of this machine.
        report: is told each step in one line.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: a gate failed, named with its task and number; no bundle is left.
        ConfigError: tasks that are not fed alike.
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
    """
    EXPORT_TARGETS.get("onnx")().check_packages()
    check_same_input(list(tasks))
    for task in tasks:
        check_trained(task.trained)
    with new_folder(out) as folder:
        written = write_base(folder / MODEL_FILE, tasks, base_sha256, opset)
        report(
            f"wrote {MODEL_FILE}: {written.nodes} nodes, {len(written.inputs)} optional inputs, opset {written.opset}"
        )
        write_adapters(folder, tasks, base_sha256, written.factors)
        parity = measure_tasks(tasks, folder, MODEL_FILE, base_sha256, written.factors)
        for task in tasks:
            report(f"{task.name}: {_summary(task, folder, parity[task.name])}")
        write_json(folder / PARITY, {name: to_json(measured) for name, measured in parity.items()})
        write_golden(folder, tasks)
        variants = {} if int8 == "none" else {INT8: _int8(folder, tasks, base_sha256, opset, max_drop, report)}
        manifest = replace(_describe(folder, tasks, base_sha256, written, parity), variants=variants)
        write_text(folder / CARD, multi_card(manifest))
        manifest = replace(manifest, files=describe_files(folder))
        write_manifest(folder, manifest)
        refuse_local_paths(sorted(folder.iterdir()), (*secrets, out.absolute(), folder))
        verify_multi(folder)
    return manifest


def write_base(
    path: Path, tasks: Sequence[Task], base_sha256: str, opset: int, *, random: bool = False
) -> WrittenGraph:
    """Write the base graph with the tensors of all tasks as optional inputs; with ``random`` weights, a twin of it."""
    tensors = same_forms({task.name: tensors_of(task) for task in tasks})
    counts = {task.name: len(task.trained.classes) for task in tasks}
    first, model = tasks[0].trained, tasks[0].plain()
    if random:
        model = randomised_copy(model, first.examples, generator=torch.Generator().manual_seed(_SEED))
    inputs = insert_inputs(model, list(tensors.values())) + own_inputs(tensors, counts, tasks[0].head)
    feed = (first.input_name, tuple(first.input_shape))
    return write_graph(path, model, inputs, feed=feed, base_sha256=base_sha256, opset=opset)


def _int8(  # noqa: PLR0913
    folder: Path,
    tasks: Sequence[Task],
    base_sha256: str,
    opset: int,
    max_drop: float,
    report: Callable[[str], None],
) -> VariantEntry:
    """Write and measure the base in int8."""
    with tempfile.TemporaryDirectory() as scratch:
        twin = Path(scratch, MODEL_FILE)
        write_base(twin, tasks, base_sha256, opset, random=True)
        entry = make_int8(tasks, BaseFiles(folder / MODEL_FILE, twin, base_sha256), max_drop)
    share = (folder / entry.file).stat().st_size / (folder / MODEL_FILE).stat().st_size
    agreed = min(entry.measured[f"{task.name}: top1_agreement"] for task in tasks)
    report(f"wrote {entry.file}: {100 * share:.1f} % of the base, top-1 agreement {100 * agreed:.1f} % or more")
    return entry


def _summary(task: Task, folder: Path, parity: TaskParity) -> str:
    share = (folder / f"{task.name}{SUFFIX}").stat().st_size / (folder / MODEL_FILE).stat().st_size
    numbers = f"{parity.trained.worst:.2e} trained, {parity.randomised.worst:.2e} randomised"
    return f"{task.method}, {len(task.trained.classes)} classes, {100 * share:.2f} % of the base; parity {numbers}"


def _describe(
    folder: Path, tasks: Sequence[Task], base_sha256: str, written: WrittenGraph, parity: dict[str, TaskParity]
) -> MultiManifest:
    first = tasks[0].trained
    return MultiManifest(
        schema_version=SCHEMA_VERSION,
        kind=first.kind,
        target="onnx",
        model_file=MODEL_FILE,
        base_sha256=base_sha256,
        input=InputEntry(first.input_name, tuple(first.input_shape)),
        output_name=OUTPUT_NAME,
        preprocessing=without_paths(first.preprocessing),
        opset=written.opset,
        nodes=written.nodes,
        tasks={task.name: _entry(task, parity[task.name]) for task in tasks},
        variants={},
        versions=package_versions(),
        files=describe_files(folder),
    )


def _entry(task: Task, parity: TaskParity) -> TaskEntry:
    return TaskEntry(
        file=f"{task.name}{SUFFIX}",
        classes=tuple(task.trained.classes),
        method=task.method,
        adapter_version=ADAPTER_VERSION,
        parity={
            "max_abs_difference_trained": parity.trained.worst,
            "max_abs_difference_randomised": parity.randomised.worst,
            "top1_agreement": min(row.top1_agreement for row in parity.trained.batches),
        },
        scores=without_paths(task.trained.scores),
        details=without_paths(task.trained.details),
    )
