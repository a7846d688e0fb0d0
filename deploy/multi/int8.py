"""The base in int8 beside the one in float32: a quarter of the size, and the same adapter files fit it.

What training made of the base is quantised as `deploy.quantise` does for linear layers; convolutions are stored in int8
and computed in float32. What a task brings stays float32: its inputs lose their defaults first, since the quantiser
would take an optional input for a constant and drop it, and get them back after.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.graph_edit import read_graph, write_graph
from deploy.layout import VariantEntry
from deploy.multi.adapter_file import SUFFIX
from deploy.multi.required import split_defaults
from deploy.multi.switch import AdapterSwitch
from deploy.multi.task import Task
from deploy.quantise import compact, prepared, quantise_dynamic, weight_nodes
from deploy.rows import answers, compare_rows, rows_of
from deploy.target import OUTPUT_NAME
from deploy.targets.onnx import check_model
from deploy.variant_files import check_variant
from shared_peft.errors import ExportError

INT8, INT8_FILE = "int8", "model.int8.onnx"


@dataclass(frozen=True)
class BaseFiles:
    """A finished base graph, its twin of random weights, and the mark of the base.

    Args:
        model: the float32 file, the adapter files beside it.
        twin: the same exported with random weights; its constants that are equal are no weights.
        base_sha256: of the base.
    """

    model: Path
    twin: Path
    base_sha256: str


def write_int8(files: BaseFiles, path: Path) -> None:
    """Write the base with int8 weights to ``path``.

    Raises:
        ExportError: a base without a weight to quantise, or one that onnxruntime's tools do not take.
    """
    source = read_graph(files.model)
    defaults, marks = split_defaults(source), list(source.metadata_props)
    with tempfile.TemporaryDirectory() as scratch:
        bare, twin = Path(scratch, "bare.onnx"), Path(scratch, "twin.onnx")
        write_graph(source, bare)
        other = read_graph(files.twin)
        split_defaults(other)
        write_graph(other, twin)
        model = prepared(bare)
        nodes = weight_nodes(model, prepared(twin))
    if not nodes:
        must = "the base must have at least one linear layer or convolution"
        raise ExportError(INT8, must, "none", "Export without --int8")
    floats = {tensor.name for tensor in model.graph.initializer}
    model = quantise_dynamic(model, nodes)
    compact(model, floats)
    model.graph.initializer.extend(defaults)
    model.metadata_props.extend(marks)
    check_model(model)
    write_graph(model, path)


def make_int8(tasks: Sequence[Task], files: BaseFiles, max_drop: float) -> VariantEntry:
    """Write the int8 base beside the float32 one and measure every task on both.

    Args:
        tasks: the tasks, their adapter files beside the model file.
        files: what it is made from.
        max_drop: largest loss of accuracy of a task [percentage points]; see `check_variant`.

    Returns:
        What the manifest says: the measures of the task that loses most, the largest difference of all, and those of
        every task as "task: measure".

    Raises:
        ExportError: a task lost more than allowed, or the file cannot be made.
    """
    folder = files.model.parent
    write_int8(files, folder / INT8_FILE)
    adapters = {task.name: folder / f"{task.name}{SUFFIX}" for task in tasks}
    switches = [
        AdapterSwitch(path, adapters, files.base_sha256, threads=1) for path in (files.model, folder / INT8_FILE)
    ]
    measured = {}
    for task in tasks:
        measured[task.name] = _measured(task, *switches)
        check_variant(f"int8, task {task.name}", _entry(measured[task.name]), max_drop)
    worst = max(measured.values(), key=lambda each: each.get("drop_points", 100 * (1 - each["top1_agreement"])))
    each = {f"{name}: {key}": value for name, values in measured.items() for key, value in values.items()}
    difference = max(values["max_abs_difference"] for values in measured.values())
    return _entry({**worst, "max_abs_difference": difference, **each})


def _entry(measured: dict[str, float]) -> VariantEntry:
    return VariantEntry(INT8_FILE, "int8", 0, "onnxruntime", measured)


def _measured(task: Task, reference: AdapterSwitch, quantised: AdapterSwitch) -> dict[str, float]:
    """Return what is measured of one task, on its validation data or, where the run has none, its examples."""
    rows = rows_of(task.trained, labelled=task.trained.validation is not None)

    def run(switch: AdapterSwitch) -> np.ndarray:
        name = task.trained.input_name
        return answers(lambda inputs: switch.run(OUTPUT_NAME, {name: inputs}, task.name), rows.inputs)

    return compare_rows(run(reference), run(quantised), rows.labels)
