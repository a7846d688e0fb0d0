"""Sizes and latency of one base with an adapter beside the merged model, as a Markdown table.

Run: python -m tests.deploy.multi.measure
"""

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from deploy.multi.adapter_file import SUFFIX, load_adapter, run_options, write_adapter
from deploy.multi.bundle import MODEL_FILE, write_base
from deploy.multi.inputs import arrays_of, same_forms, tensors_of
from deploy.multi.int8 import INT8_FILE, BaseFiles, write_int8
from deploy.multi.task import Task
from deploy.program import export_program, merged_copy
from deploy.session import open_session
from deploy.targets.onnx import OnnxTarget
from shared_peft.training import TrainedModel
from tests.deploy.architectures import fill, window_model
from vision.adapt import adapt
from vision.backbones.build import build_backbone, build_from_spec

_MARK = "0" * 64
_HEAD = (
    "| base | method | layers | r | base [MB] | adapter [KB] | share | merged [ms] | multi [ms] | ratio | padded "
    "| int8 base | int8 / merged | agreement |"
)
_AGREEING = 64  # rows of noise
_ATTENTION, _ALL = "qkv,proj", "all"
CASES = (
    ("timm/vit_tiny_patch16_224", "lora", _ATTENTION, 4),
    ("timm/vit_tiny_patch16_224", "lora", _ALL, 4),
    ("timm/vit_tiny_patch16_224", "lora_tsd", _ATTENTION, 4),
    ("timm/resnet18", "flora", _ALL, 4),
    ("resnet20", "flora", _ALL, 4),
    ("limu", "lora", _ALL, 4),
    ("saga", "lora", _ALL, 4),
)


@dataclass(frozen=True)
class Options:
    """Options of the measurement."""

    calls: int = 60
    """Calls of each model; the three take turns."""
    only: str = ""
    """Bases to measure, those whose name holds this; all where it is empty."""
    padded_rank: int = 16
    """Rank that the padded column fills every factor up to, with zeros."""


def main(options: Options) -> None:
    """Measure every case and print the table."""
    torch.set_num_threads(1)
    sys.stdout.write(f"{_HEAD}\n|{'---|' * 14}\n")
    for name, method, layers, rank in tqdm([case for case in CASES if options.only in case[0]], desc="cases"):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(task_of(name, method, layers, rank), Path(folder), options)
        sys.stdout.write(f"| {name} | {method} | {layers} | {rank} | {row}\n")
        sys.stdout.flush()


def task_of(name: str, method: str, layers: str, rank: int) -> Task:
    """Return a task on a backbone with random weights."""
    if name in ("limu", "saga"):
        return Task("a", window_model(name, method), ("head",), ("standardise",), "encoder.")
    built = build_backbone(name, 10)
    shape = (built.data.channels, built.data.size, built.data.size)
    model = fill(
        adapt(built, method, {"r": rank, "target_modules": "all" if layers == _ALL else layers.split(",")}).model
    )
    examples = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    classes = tuple(map(str, range(10)))
    trained = TrainedModel(
        "vision", model, lambda: build_from_spec(built.spec).model, "image", shape, classes, {}, examples
    )
    return Task("a", trained, built.head)


def measure(task: Task, folder: Path, options: Options) -> str:
    """Return the row's numbers: sizes, medians and the ratio to the merged model, each call beside its neighbours."""
    trained, model = task.trained, folder / MODEL_FILE
    factors = write_base(model, [task], _MARK, 20).factors
    tensors = same_forms({"a": tensors_of(task)})["a"]
    write_adapter(folder / f"a{SUFFIX}", arrays_of(tensors, factors), _MARK)
    wide = {slot: padded(factors, options.padded_rank) for slot, factors in tensors.changes.items()}
    write_adapter(folder / f"padded{SUFFIX}", arrays_of(replace(tensors, changes=wide), factors), _MARK)
    program = export_program(merged_copy(trained.model), trained.input_shape)
    OnnxTarget().write(program, folder / "merged.onnx", input_name=trained.input_name, opset=20)
    session, merged = (open_session(path, threads=1) for path in (model, folder / "merged.onnx"))
    adapters = [load_adapter(folder / f"{name}{SUFFIX}") for name in ("a", "padded")]
    feeds = {trained.input_name: trained.examples[:1].numpy()}
    calls = [lambda: merged.run(None, feeds)]
    small = folder / INT8_FILE
    write_base(folder / "twin.onnx", [task], _MARK, 20, random=True)
    write_int8(BaseFiles(model, folder / "twin.onnx", _MARK), small)
    quantised = open_session(small, threads=1)
    calls += [partial(session.run, None, feeds, run_options(adapter)) for adapter in adapters]
    calls.append(partial(quantised.run, None, feeds, run_options(adapters[0])))
    seconds = np.array([[clocked(call) for call in calls] for _ in range(options.calls)])[5:]
    single, multi, *_ = 1e3 * np.median(seconds, axis=0)
    ratios = np.median(seconds[:, 1:] / seconds[:, :1], axis=0)
    base, adapter = model.stat().st_size, (folder / f"a{SUFFIX}").stat().st_size
    sizes = f"{base / 1e6:.2f} | {adapter / 1e3:.0f} | {100 * adapter / base:.2f} % "
    shape, generator = (_AGREEING, *trained.input_shape), np.random.default_rng(0)
    rows = {trained.input_name: generator.normal(size=shape).astype(np.float32)}
    first = [each.run(None, rows, run_options(adapters[0]))[0].argmax(1) for each in (session, quantised)]
    share, agreed = 100 * small.stat().st_size / base, 100 * (first[0] == first[1]).mean()
    times = f"{single:.2f} | {multi:.2f} | {ratios[0]:.3f} | {ratios[1]:.3f}"
    return f"{sizes}| {times} | {share:.1f} % | {ratios[2]:.3f} | {agreed:.1f} % |"


def padded(factors, rank: int):
    """Return a chain with zeros up to a rank; where it is more already, as it is."""
    core, out_factor, in_factor = factors.core, factors.out_factor, factors.in_factor
    more = max(0, rank - core.shape[0])
    core = torch.cat([core, core.new_zeros(more, *core.shape[1:])])
    out_factor = torch.cat([out_factor, out_factor.new_zeros(len(out_factor), more)], dim=1)
    if in_factor is not None:
        more = max(0, rank - in_factor.shape[0])
        core = torch.cat([core, core.new_zeros(len(core), more, *core.shape[2:])], dim=1)
        in_factor = torch.cat([in_factor, in_factor.new_zeros(more, in_factor.shape[1])])
    return replace(factors, core=core, out_factor=out_factor, in_factor=in_factor)


def clocked(call) -> float:
    """Return the time a call takes [s]."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(tyro.cli(Options))
