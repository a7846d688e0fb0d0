"""Adapt one small model of every timm family with three methods; export the smallest ones.

Run: python -m tests.benchmarks.families [--results FILE] [--exports COUNT] [--families NAME ...]
The results file is written after every family, and families in it are not run again.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deploy.program import export_program
from deploy.target import EXPORT_TARGETS
from shared_peft.atomic import write_json
from tests.shared_peft.families import METHOD_FIELDS, Built, build_smallest, check_family, families, first_line

OPSET = 18


def run_family(family: str) -> dict[str, Any]:
    """Build a family's model and adapt it with every method; failures are kept as their reason."""
    try:
        built = build_smallest(family)
    except Exception as error:  # a family that cannot be built is a row of the table
        return {"built": first_line(error)}
    row: dict[str, Any] = {"model": built.name, "size": built.size, "parameters": built.parameters, "methods": {}}
    for method in METHOD_FIELDS:
        began = time.perf_counter()
        try:
            _, numbers = check_family(built, method)
        except Exception as error:  # whatever goes wrong is the row's reason
            row["methods"][method] = {"failed": f"{type(error).__name__}: {first_line(error)}"}
        else:
            row["methods"][method] = {**numbers, "seconds": round(time.perf_counter() - began, 1)}
    return row


def run_export(family: str) -> dict[str, Any]:
    """Merge a FLoRA adapter of a family's model, export it with a free batch, and compare onnxruntime with eager."""
    built = build_smallest(family)
    merged, _ = check_family(built, "flora")
    try:
        return {"difference": _exported_difference(merged.eval(), built)}
    except Exception as error:  # torch.export and the ONNX exporter let through whatever the model's code raises
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}


def _exported_difference(merged: nn.Module, built: Built) -> float:
    """Return the largest difference of onnxruntime's answer, relative to the answer's largest value."""
    target = EXPORT_TARGETS.get("onnx")()
    program = export_program(merged, (3, built.size, built.size))
    images = built.images(4, seed=5)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, target.file_name)
        target.write(program, path, input_name="image", opset=OPSET)
        expected = merged(images).numpy()
        difference = np.abs(target.open(path)(images.numpy()) - expected).max() / np.abs(expected).max()
        again = np.abs(program.module()(images).numpy() - expected).max() / np.abs(expected).max()
    return float(max(difference, again))


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: one row a family, then the failures by name."""
    heads = ("family", "model", "px", "million parameters", "layers", *METHOD_FIELDS, "export")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    failures: list[str] = []
    for family, row in sorted(results.items()):
        if "built" in row:
            failures.append(f"- {family}: {row['built']}")
            continue
        cells = [family, row["model"], str(row["size"]), f"{row['parameters'] / 1e6:.1f}"]
        numbers = row["methods"]
        layers = next((method["layers"] for method in numbers.values() if "layers" in method), "")
        exported = row.get("export")
        outcomes = {**numbers, **({"export": exported} if exported else {})}
        failures += [f"- {family}, {name}: {one['failed']}" for name, one in outcomes.items() if "failed" in one]
        cells += [str(layers), *(_cell(numbers[name]) for name in METHOD_FIELDS), _cell(exported)]
        lines.append(f"| {' | '.join(cells)} |")
    passed = sum(
        "methods" in row and not any("failed" in m for m in row["methods"].values()) for row in results.values()
    )
    exports = sum("difference" in row.get("export", {}) for row in results.values())
    counts = f"{passed} of {len(results)} families pass with every method; {exports} exported to ONNX."
    return "\n".join([counts, "", *lines, "", "Failures:", *(failures or ["- none"])])


def _cell(outcome: dict[str, Any] | None) -> str:
    if not outcome:
        return ""
    return "fails" if "failed" in outcome else f"{outcome['difference']:.0e}"


def main() -> None:
    """Run what the results file does not hold yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("families.json"))
    parser.add_argument("--exports", type=int, default=24, help="how many of the smallest models to export")
    parser.add_argument("--families", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = json.loads(options.results.read_text()) if options.results.is_file() else {}
    for family in options.families or families():
        if family not in results:
            results[family] = run_family(family)
            write_json(options.results, results)
            sys.stderr.write(f"{family}: {results[family]}\n")
    built = [family for family, row in results.items() if "methods" in row]
    for family in sorted(built, key=lambda name: results[name]["parameters"])[: options.exports]:
        if "export" not in results[family]:
            results[family]["export"] = run_export(family)
            write_json(options.results, results)
            sys.stderr.write(f"{family} export: {results[family]['export']}\n")
    print(table(results))


if __name__ == "__main__":
    main()
