"""The files of a bundle that answer, each with the sample it must answer: one model, its variants, or one a task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.golden import GoldenSample, read_golden
from deploy.manifest import verify_bundle
from deploy.multi.golden import read_golden as read_golden_of_tasks
from deploy.multi.manifest import holds_tasks, verify_multi


@dataclass(frozen=True, eq=False)
class ModelFile:
    """One model as a phone would run it.

    Args:
        bundle: the bundle's folder.
        path: the model file.
        feed: name of its input.
        output: name of the logits.
        sample: inputs and PyTorch's logits.
        variant: its name among the bundle's variants; "" for the model file.
        batch: rows it takes at once; 0 for any number.
        task: name of the task; "" where the model is whole.
        adapter: the task's adapter file; None where the model is whole.
        base_sha256: of the base that the adapter must be of; "" where the model is whole.
    """

    bundle: Path
    path: Path
    feed: str
    output: str
    sample: GoldenSample
    variant: str = ""
    batch: int = 0
    task: str = ""
    adapter: Path | None = None
    base_sha256: str = ""

    @property
    def name(self) -> str:
        """The file's name, and its task's."""
        return self.path.name + (f", task {self.task}" if self.task else "")

    @property
    def pieces(self) -> list[np.ndarray]:
        """The sample's inputs, as many rows at a time as the file takes."""
        inputs = self.sample.inputs
        step = self.batch or len(inputs)
        return [inputs[start : start + step] for start in range(0, len(inputs), step)]


def model_files(bundle: Path) -> list[ModelFile]:
    """Verify a bundle and return its model and variants, or its base and the base's variants once for each task.

    Args:
        bundle: the bundle's folder.

    Raises:
        BundleError: a file is missing or changed, or the golden sample does not fit.
    """
    if holds_tasks(bundle):
        return _of_tasks(bundle)
    manifest = verify_bundle(bundle)
    sample, feed, output = read_golden(bundle, manifest), manifest.input.name, manifest.output_name
    files = [ModelFile(bundle, bundle / manifest.model_file, feed, output, sample)]
    for name, entry in manifest.variants.items():
        files.append(ModelFile(bundle, bundle / entry.file, feed, output, sample, name, entry.batch))
    return files


def _of_tasks(bundle: Path) -> list[ModelFile]:
    manifest = verify_multi(bundle)
    samples = read_golden_of_tasks(bundle, manifest)
    bases = {"": (manifest.model_file, 0)}
    bases |= {name: (entry.file, entry.batch) for name, entry in manifest.variants.items()}
    return [
        ModelFile(
            bundle,
            bundle / file,
            manifest.input.name,
            manifest.output_name,
            samples[name],
            variant,
            batch,
            name,
            bundle / task.file,
            manifest.base_sha256,
        )
        for variant, (file, batch) in bases.items()
        for name, task in manifest.tasks.items()
    ]
