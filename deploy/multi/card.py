"""README.md of a bundle with many adapters, written from its manifest."""

from deploy.bundle_files import GOLDEN, MANIFEST, PARITY, SUMS
from deploy.card import plain_values, section, table
from deploy.multi.manifest import MultiManifest, TaskEntry

_RUN = """\
```python
from pathlib import Path
from deploy import BundleRunner

runner = BundleRunner(Path("."))
for task in runner.tasks:
    runner.set_adapter(task)
    for answer in runner.predict(inputs):  # float32, shape {shape}
        answer.label, answer.probability
```
"""
_ABOUT = """\
The base graph is stored once. A task is an adapter file for onnxruntime (`RunOptions.add_active_adapter`): its adapter
and its head. Without one the base has no head, and its answer means nothing.
"""


def multi_card(manifest: MultiManifest) -> str:
    """Return the model card of a bundle as Markdown; the sizes are those of the files described so far."""
    shape = f"(batch, {', '.join(map(str, manifest.input.shape))})"
    base = manifest.files[manifest.model_file].size_bytes
    tasks = manifest.tasks.items()
    sizes = {name: manifest.files[task.file].size_bytes for name, task in tasks}
    roles = {manifest.model_file: f"the base, {manifest.nodes} nodes, opset {manifest.opset}, {base} bytes"}
    roles |= {
        task.file: f"adapter and head of {name}, {sizes[name]} bytes ({100 * sizes[name] / base:.2f} % of the base)"
        for name, task in tasks
    }
    roles |= {
        each.file: f"the base in {each.precision}, {manifest.files[each.file].size_bytes} bytes; same adapters"
        for each in manifest.variants.values()
    }
    roles |= {
        MANIFEST: "all of this for programs",
        GOLDEN: "inputs, and the logits expected of every task",
        PARITY: "the whole parity report",
        SUMS: "hashes: `sha256sum -c SHA256SUMS`",
    }
    sections = [
        f"# One base, {len(sizes)} tasks: {', '.join(sizes)}\n\n{_ABOUT}",
        section(
            "Input and output",
            f"Input `{manifest.input.name}`, {manifest.input.dtype}, {shape}; any batch of 1 or more.\n"
            f"Output `{manifest.output_name}`, float32, (batch, classes of the task): logits in class order.",
        ),
        section("Preprocessing", table(manifest.preprocessing, ("step", "value"))),
        *(section(f"Task {name}", table(_facts(task), ("what", "value"))) for name, task in tasks),
        section("Base", f"SHA-256 of its frozen tensors: `{manifest.base_sha256}`. Adapters of another are refused."),
        section("Files", table(roles, ("file", "holds"))),
        section("Run it", _RUN.format(shape=shape)),
        section("Versions", table(manifest.versions, ("package", "version"))),
    ]
    return "\n\n".join(sections).rstrip() + "\n"


def _facts(task: TaskEntry) -> dict[str, object]:
    return {
        "classes": task.classes,
        "method": task.method,
        **plain_values(task.parity),
        **plain_values(task.scores),
        **plain_values(task.details),
    }
