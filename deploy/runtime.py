"""Run a bundle of one task or of many adapters: check it, load it, switch tasks, answer with class names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.bundle_files import BundleError
from deploy.golden import GoldenSample, read_golden
from deploy.layout import VariantEntry
from deploy.manifest import Manifest, verify_bundle
from deploy.multi.golden import read_golden as read_golden_of_tasks
from deploy.multi.inputs import CLASSES
from deploy.multi.manifest import MultiManifest, holds_tasks, verify_multi
from deploy.multi.switch import AdapterSwitch
from deploy.parity import TOLERANCE
from deploy.rows import answers
from deploy.session import INPUT_TYPES, open_session
from shared_peft.errors import AdapterError, DataError, UnknownNameError

if TYPE_CHECKING:
    from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
    from imu_saga.streaming.smoothing import Smoothing


@dataclass(frozen=True)
class Answer:
    """One row's answer: the first class, its probability in [0, 1], every class's probability in class order."""

    label: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class GoldenCheck:
    """The golden sample run again, of every task where there are several.

    Args:
        rows: rows compared, of all tasks together.
        max_abs_difference: largest difference to PyTorch's logits.
        top1_agreement: smallest of all tasks, in [0, 1].
    """

    rows: int
    max_abs_difference: float
    top1_agreement: float


class BundleRunner:
    """A bundle, verified and ready to answer.

    Args:
        bundle: the bundle's folder.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.
        variant: name of a further model file; "" takes the model file.

    Raises:
        BundleError: a file is missing or changed, or the model is not what the manifest says.
        UnknownNameError: the bundle has no such variant.
        MissingPackageError: onnxruntime is not installed.
    """

    manifest: Manifest | MultiManifest

    def __init__(self, bundle: Path, *, threads: int = 0, variant: str = "") -> None:
        self.bundle = bundle
        self._variant: VariantEntry | None = None
        self._switch: AdapterSwitch | None = None
        if holds_tasks(bundle):
            found = self.manifest = verify_multi(bundle)
            self._variant = _chosen(found, variant)
            self.file = self._variant.file if self._variant else found.model_file
            files = {name: bundle / task.file for name, task in found.tasks.items()}
            self._switch = AdapterSwitch(bundle / self.file, files, found.base_sha256, threads=threads)
            self._session = self._switch.session
            self.active = next(iter(files))
        else:
            found, self.active = verify_bundle(bundle), ""
            self.manifest, self._variant = found, _chosen(found, variant)
            self.file = self._variant.file if self._variant else found.model_file
            self._session = open_session(bundle / self.file, threads=threads)
        self._check_signature()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the adapters; none where the bundle holds one merged model."""
        return self._switch.names if self._switch is not None else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the active task, in the order of the logits."""
        manifest = self.manifest
        return manifest.tasks[self.active].classes if isinstance(manifest, MultiManifest) else manifest.classes

    def set_adapter(self, name: str) -> None:
        """Let the base answer for another task from now on; nothing is loaded or built.

        Raises:
            AdapterError: no such task, or a bundle with one merged model.
        """
        if self._switch is None:
            fix = "Export several runs with `python -m deploy multi`"
            raise AdapterError(self.bundle, "must hold adapters to switch", f"one merged model, not {name!r}", fix)
        self.active = self._switch.check(name)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return the active task's logits, shape (batch, classes), of preprocessed inputs, shape (batch, *input_shape).

        Raises:
            DataError: another shape, no row at all, or values that are not finite.
        """
        return self.logits_of(self.active, inputs)

    def logits_of(self, task: str, inputs: np.ndarray) -> np.ndarray:
        """Return the logits of a task by name, "" for a bundle of one, whichever is active; inputs as for `logits`."""
        entry = self.manifest.input
        if entry.dtype == "uint8" and np.asarray(inputs).dtype != np.uint8:
            raise DataError(entry.name, "must be uint8", np.asarray(inputs).dtype, "Give pixels as they were decoded")
        values = np.ascontiguousarray(inputs, dtype=entry.dtype)
        if not entry.fits(values.shape[1:]) or len(values) == 0:
            must = f"must have shape {entry.words}"
            raise DataError(entry.name, must, values.shape, "Preprocess as the manifest says; add the batch dimension")
        if not np.isfinite(values).all():
            raise DataError(entry.name, "must be finite", "NaN or infinite values", "Repair the input first")
        feeds, output = {entry.name: values}, self.manifest.output_name
        if self._switch is not None:
            return self._switch.run(output, feeds, task)
        batch = self._variant.batch if self._variant else 0
        return answers(lambda rows: self._session.run([output], {entry.name: rows})[0], values, batch or len(values))

    def predict(self, inputs: np.ndarray) -> list[Answer]:
        """Return one labelled answer a row; inputs as for `logits`."""
        logits = self.logits(inputs).astype(np.float64)
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        firsts = probabilities.argmax(axis=-1)
        return [
            Answer(self.classes[first], float(row[first]), tuple(map(float, row)))
            for first, row in zip(firsts, probabilities, strict=True)
        ]

    def predict_images(self, paths: Sequence[Path]) -> list[Answer]:
        """Return one labelled answer an image file, read and prepared as in training; needs the extra vision.

        Raises:
            DataError: a file that is no image, or a bundle that does not take images.
        """
        from deploy.runtime_images import read_inputs  # noqa: PLC0415  (slow to import)

        return [answer for inputs in read_inputs(paths, self.manifest) for answer in self.predict(inputs)]

    def stream(
        self,
        options: "StreamOptions | None" = None,
        *,
        channels: Sequence[str] | None = None,
        smoothing: "Smoothing | None" = None,
        notice: Callable[[str], object] = lambda line: None,
    ) -> "StreamClassifier":
        """Return a classifier of IMU samples as they come, for the task that is active now.

        Args:
            options: rate, units and hop of the source; see `imu_saga.streaming.classifier`.
            channels: names of the pushed columns; None for the model's own.
            smoothing: rule over consecutive windows; None for none.
            notice: called with one line when the clock jumps back.

        Raises:
            DataError: a bundle that does not take IMU windows, or a channel that is missing.
        """
        from deploy.runtime_stream import as_run  # noqa: PLC0415  (slow to import)
        from imu_saga.streaming.classifier import StreamClassifier  # noqa: PLC0415

        task = self.active
        run = as_run(self.bundle, self.manifest, self.classes, lambda inputs: self.logits_of(task, inputs))
        return StreamClassifier(
            run, options, channels=channels, smoothing=smoothing, session=task or "stream", notice=notice
        )

    def check_golden(self) -> GoldenCheck:
        """Run the golden sample, of every task where there are several; the active task stays.

        Raises:
            BundleError: the answers are not those that PyTorch gave.
        """
        if not isinstance(self.manifest, MultiManifest):
            return self._check_sample(read_golden(self.bundle, self.manifest), str(self.bundle))
        active, checks = self.active, []
        for name, sample in read_golden_of_tasks(self.bundle, self.manifest).items():
            self.set_adapter(name)
            checks.append(self._check_sample(sample, f"{self.bundle}, task {name}"))
        self.set_adapter(active)
        return GoldenCheck(
            sum(check.rows for check in checks),
            max(check.max_abs_difference for check in checks),
            min(check.top1_agreement for check in checks),
        )

    def _check_sample(self, sample: GoldenSample, where: str) -> GoldenCheck:
        logits = self.logits(sample.inputs)
        difference = float(np.abs(logits - sample.logits).max())
        agreement = float((logits.argmax(-1) == sample.logits.argmax(-1)).mean())
        tolerance, alike = _allowed_difference(self._variant)
        if not (difference <= tolerance and agreement >= alike):
            must = f"logits must be within {tolerance:g} of the golden sample's"
            must += ", with the same first class" if alike else ""
            got = f"{difference:.3g} and {100 * agreement:.1f} % agreement"
            raise BundleError(where, must, got, "Run it with another onnxruntime, or export again")
        return GoldenCheck(len(logits), difference, agreement)

    def _check_signature(self) -> None:
        """Compare the model's own input and output with the manifest's words."""
        entry = self.manifest.input
        inputs = [(item.name, item.type, _sizes(item.shape[1:])) for item in self._session.get_inputs()]
        outputs = [(item.name, tuple(item.shape[1:])) for item in self._session.get_outputs()]
        logits = (len(self.classes),) if self._switch is None else (CLASSES,)
        free = tuple("any" if axis in entry.free_axes else size for axis, size in enumerate(entry.shape))
        expected = [(entry.name, INPUT_TYPES[entry.dtype], free)], [(self.manifest.output_name, logits)]
        if (inputs, outputs) != expected:
            must = f"inputs and outputs must be {expected[0]} and {expected[1]}, as the manifest says"
            raise BundleError(self.file, must, f"{inputs} and {outputs}", "Export the run again")
        if isinstance(self.manifest, MultiManifest) and self._switch is not None:
            zeros = {entry.name: np.zeros((1, *entry.shape), np.float32)}
            for name, task in self.manifest.tasks.items():
                found = self._switch.run(self.manifest.output_name, zeros, name).shape[-1]
                if found != len(task.classes):
                    must = f"must have {len(task.classes)} classes, as the manifest says"
                    raise BundleError(task.file, must, found, "Export the tasks again")


def _sizes(shape: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return a shape with its named dimensions as "any"."""
    return tuple(size if isinstance(size, int) else "any" for size in shape)


def _chosen(manifest: Manifest | MultiManifest, variant: str) -> VariantEntry | None:
    """Return the entry of a variant; None where "" asks for the model file.

    Raises:
        UnknownNameError: no such variant.
    """
    known = manifest.variants
    if variant and variant not in known:
        must = f"variant must be one of {', '.join(known) or 'none'}, or empty for the model file"
        raise UnknownNameError(manifest.model_file, must, repr(variant), "Export it, or choose another")
    return known.get(variant)


def _allowed_difference(variant: VariantEntry | None) -> tuple[float, float]:
    """Return how far from PyTorch's logits a file's may be, and the least share of rows with the same first class.

    A quantised file may be twice as far as it was where it was made: another processor rounds otherwise (ours).
    """
    if variant is None or variant.precision == "fp32":
        return TOLERANCE, 1.0
    return max(TOLERANCE, 2 * variant.measured.get("max_abs_difference", 0.0)), 0.0
