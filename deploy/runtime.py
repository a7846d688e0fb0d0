"""Run a bundle: check it, load it, answer with class names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.golden import read_golden
from deploy.manifest import BundleError, verify_bundle
from deploy.parity import TOLERANCE
from deploy.session import open_session
from shared_peft.errors import DataError


@dataclass(frozen=True)
class Answer:
    """One row's answer: the first class, its probability in [0, 1], every class's probability in class order."""

    label: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class GoldenCheck:
    """The golden sample run again: rows, largest difference to PyTorch's logits, top-1 agreement in [0, 1]."""

    rows: int
    max_abs_difference: float
    top1_agreement: float


class BundleRunner:
    """A bundle, verified and ready to answer.

    Args:
        bundle: the bundle's folder.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.

    Raises:
        BundleError: a file is missing or changed, or the model is not what the manifest says.
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, bundle: Path, *, threads: int = 0) -> None:
        self.bundle = bundle
        self.manifest = verify_bundle(bundle)
        self._session = open_session(bundle / self.manifest.model_file, threads=threads)
        self._check_signature()

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return logits, shape (batch, classes), of preprocessed inputs, shape (batch, *input_shape).

        Raises:
            DataError: another shape, no row at all, or values that are not finite.
        """
        entry = self.manifest.input
        values = np.ascontiguousarray(inputs, dtype=np.float32)
        if values.shape[1:] != entry.shape or len(values) == 0:
            must = f"must have shape (batch, {', '.join(map(str, entry.shape))})"
            raise DataError(entry.name, must, values.shape, "Preprocess as the manifest says; add the batch dimension")
        if not np.isfinite(values).all():
            raise DataError(entry.name, "must be finite", "NaN or infinite values", "Repair the input first")
        return self._session.run([self.manifest.output_name], {entry.name: values})[0]

    def predict(self, inputs: np.ndarray) -> list[Answer]:
        """Return one labelled answer a row; inputs as for `logits`."""
        logits = self.logits(inputs).astype(np.float64)
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        firsts = probabilities.argmax(axis=-1)
        return [
            Answer(self.manifest.classes[first], float(row[first]), tuple(map(float, row)))
            for first, row in zip(firsts, probabilities, strict=True)
        ]

    def check_golden(self) -> GoldenCheck:
        """Run the golden sample.

        Raises:
            BundleError: the answers are not those that PyTorch gave.
        """
        sample = read_golden(self.bundle, self.manifest)
        logits = self.logits(sample.inputs)
        difference = float(np.abs(logits - sample.logits).max())
        agreement = float((logits.argmax(-1) == sample.logits.argmax(-1)).mean())
        if not (difference <= TOLERANCE and agreement == 1.0):
            must = f"logits must be within {TOLERANCE:g} of the golden sample's, with the same first class"
            got = f"{difference:.3g} and {100 * agreement:.1f} % agreement"
            raise BundleError(self.bundle, must, got, "Run it with another onnxruntime, or export again")
        return GoldenCheck(len(logits), difference, agreement)

    def _check_signature(self) -> None:
        """Compare the model's own input and output with the manifest's words."""
        inputs = [(item.name, tuple(item.shape[1:])) for item in self._session.get_inputs()]
        outputs = [(item.name, tuple(item.shape[1:])) for item in self._session.get_outputs()]
        entry = self.manifest.input
        expected = [(entry.name, entry.shape)], [(self.manifest.output_name, (len(self.manifest.classes),))]
        if (inputs, outputs) != expected:
            must = f"inputs and outputs must be {expected[0]} and {expected[1]}, as the manifest says"
            raise BundleError(self.manifest.model_file, must, f"{inputs} and {outputs}", "Export the run again")
