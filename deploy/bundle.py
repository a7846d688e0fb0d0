"""Write a bundle: export, measure, pass the gates, then appear under its name, whole or not at all."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from deploy.bundle_files import CARD, PARITY, describe_files
from deploy.card import model_card
from deploy.golden import write_golden
from deploy.layout import SCHEMA_VERSION, InputEntry, VariantEntry, write_manifest
from deploy.local_paths import refuse_local_paths, without_paths
from deploy.manifest import Manifest, verify_bundle
from deploy.parity import (
    TOLERANCE,
    ParityReport,
    check_graph,
    check_weights,
    compare_answers,
    compare_graphs,
)
from deploy.program import exchange_weights, export_program, graph_digest, merged_copy, unmergeable_methods
from deploy.randomise import randomised_copy
from deploy.recurrent import with_operators
from deploy.snippets import write_snippets
from deploy.structure import same_structure
from deploy.target import EXPORT_TARGETS, OUTPUT_NAME, ExportTarget, Written
from deploy.variant_files import ModelFiles, check_size, make_variants
from deploy.variants import VariantOptions, wanted_variants
from shared_peft.atomic import appearing_folder, write_json, write_text
from shared_peft.config import to_json
from shared_peft.errors import ExportError
from shared_peft.training import TrainedModel, package_versions

DEFAULT_OPSET = 20
_SEED = 20


def export_model(
    trained: TrainedModel,
    out: Path,
    *,
    target: str = "onnx",
    opset: int = DEFAULT_OPSET,
    variants: VariantOptions | None = None,
    secrets: tuple[Path, ...] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export a trained model as a bundle.

    Args:
        trained: what a run gave; left as it is.
        out: the bundle's folder; must not exist.
        target: name of a registered export target.
        opset: ONNX operator set version; 18 to 20 is what phones know.
        variants: further model files, for targets that write ONNX; None makes the fixed batch-1 file alone.
        secrets: paths that no file may hold, besides those of this machine.
        report: is told each step in one line.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: a gate failed, named with its number; no bundle is left.
        MissingPackageError: the target needs a package that is not installed.
    """
    chosen = EXPORT_TARGETS.get(target)()
    chosen.check_packages()
    check_trained(trained)
    options = _allowed(variants, chosen)
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        program = _program(trained, merged_copy(trained.model))
        written = chosen.write(program, folder / chosen.file_name, input_name=trained.input_name, opset=opset)
        report(f"wrote {chosen.file_name}: {written.nodes} nodes, opset {written.opset}")
        files = ModelFiles(folder / chosen.file_name, Path(scratch, chosen.file_name))
        parity = _measure(trained, chosen, files, program, written)
        report(f"parity: {parity.trained.worst:.2e} trained, {parity.randomised.worst:.2e} randomised weights")
        made = make_variants(trained, files, options, report)
        check_size({path.name: path.stat().st_size for path in folder.iterdir()}, options.max_size_mb)
        write_json(folder / PARITY, to_json(parity))
        write_golden(folder, trained.model, trained.examples)
        manifest = _describe(trained, target, chosen, folder, written, parity, made)
        write_manifest(folder, manifest)
        refuse_local_paths(sorted(folder.iterdir()), (*secrets, out.absolute(), folder))
        verify_bundle(folder)
    return manifest


def _allowed(variants: VariantOptions | None, target: ExportTarget) -> VariantOptions:
    """Return the options; a target that writes no ONNX has no variants, and none may be asked for."""
    options = variants or VariantOptions()
    if Path(target.file_name).suffix == ".onnx":
        return options
    alone = replace(options, fixed=False)
    if asked := [name for name, _ in wanted_variants(alone)]:
        fix = "Leave them out, or use --target onnx"
        raise ExportError(target.file_name, "variants are made from an .onnx file alone", ", ".join(asked), fix)
    return alone


def check_trained(trained: TrainedModel) -> None:
    """Raise ExportError where a model, its examples and its classes do not fit each other."""
    shape = tuple(trained.examples.shape)
    if len(trained.examples) == 0 or shape[1:] != tuple(trained.input_shape):
        must = f"examples must have shape (n, {', '.join(map(str, trained.input_shape))}) with n of 1 or more"
        raise ExportError(trained.kind, must, shape, "Keep a few real inputs with the run")
    if trained.examples.dtype not in (torch.float32, torch.uint8):
        must = "examples must be float32 or uint8"
        raise ExportError(trained.kind, must, trained.examples.dtype, "Convert them as the model takes them")
    if trained.model.training:
        raise ExportError(trained.kind, "the model must be in eval mode", "training mode", "Call model.eval() first")
    with torch.no_grad():
        logits = trained.model(trained.examples[:1])
    if tuple(logits.shape) != (1, len(trained.classes)):
        must = f"logits must have shape (1, {len(trained.classes)}), one a class"
        raise ExportError(trained.kind, must, tuple(logits.shape), "Name as many classes as the head has")


def _program(trained: TrainedModel, model: nn.Module) -> ExportedProgram:
    return export_program(model, trained.input_shape, dtype=trained.examples.dtype, free_axes=trained.free_axes)


def _measure(
    trained: TrainedModel, target: ExportTarget, files: ModelFiles, program: ExportedProgram, written: Written
) -> ParityReport:
    """Compare the written file, the unadapted architecture and a randomised twin; the first gate to fail ends it.

    A base that runs the merged model's program has its nodes; another one is written to count them. The twin's file
    stays, and ``program`` has its weights then.
    """
    examples = trained.examples

    def write(program: ExportedProgram) -> Written:
        return target.write(program, files.twin, input_name=trained.input_name, opset=written.opset)

    measured = compare_answers(trained.model, target.open(files.model, threads=1), examples, "trained")
    check_weights(measured)
    generator = torch.Generator().manual_seed(_SEED)
    twin = randomised_copy(trained.model, examples, generator=generator)
    merged, base, counted = merged_copy(twin), trained.build_base().eval(), None
    if not same_structure(with_operators(merged), with_operators(base)):
        other = _program(trained, randomised_copy(base, examples, generator=generator))
        counted = None if graph_digest(other) == graph_digest(program) else write(other)
    exchange_weights(program, merged)
    exchanged = write(program)
    graph = compare_graphs(written.operations, (counted or exchanged).operations)
    if not unmergeable_methods(trained.model):
        check_graph(graph)
    randomised = compare_answers(twin, target.open(files.twin, threads=1), examples, "randomised")
    check_weights(randomised)
    return ParityReport(TOLERANCE, measured, randomised, graph)


def input_entry(trained: TrainedModel) -> InputEntry:
    """Return what a manifest says of a trained model's input."""
    dtype = "uint8" if trained.examples.dtype == torch.uint8 else "float32"
    return InputEntry(trained.input_name, tuple(trained.input_shape), dtype, tuple(trained.free_axes))


def _describe(
    trained: TrainedModel,
    name: str,
    target: ExportTarget,
    folder: Path,
    written: Written,
    parity: ParityReport,
    variants: dict[str, VariantEntry],
) -> Manifest:
    def described(files: dict[str, Any]) -> Manifest:
        return Manifest(
            schema_version=SCHEMA_VERSION,
            kind=trained.kind,
            task="classification",
            target=name,
            model_file=target.file_name,
            variants=variants,
            input=input_entry(trained),
            output_name=OUTPUT_NAME,
            classes=tuple(trained.classes),
            preprocessing=without_paths(trained.preprocessing),
            opset=written.opset,
            nodes=written.nodes,
            parity={
                "max_abs_difference_trained": parity.trained.worst,
                "max_abs_difference_randomised": parity.randomised.worst,
                "top1_agreement": min(row.top1_agreement for row in parity.trained.batches),
                "nodes_more_than_base": float(parity.graph.nodes - parity.graph.base_nodes),
            },
            scores=without_paths(trained.scores),
            details=without_paths(trained.details),
            versions=package_versions(),
            files=files,
        )

    models = described(describe_files(folder))
    write_snippets(folder, models)
    write_text(folder / CARD, model_card(models, unmerged=unmergeable_methods(trained.model)))
    return described(describe_files(folder))


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; rename it onto ``out`` if the block succeeds, remove it otherwise.

    Raises:
        ExportError: ``out`` exists.
    """
    if out.exists() or out.is_symlink():
        raise ExportError(out, "must be a new folder", "something that exists", "Choose another --out, or remove it")
    with appearing_folder(out) as folder:
        yield folder
