"""The golden sample in another process: another processor's Python, or one that may abort."""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.model_files import ModelFile
from shared_peft.errors import ExportError

JOB = Path(__file__).parent / "foreign_job.py"
_TIMEOUT_S = 550


def run_foreign(
    where: str, command: Sequence[str], environment: Mapping[str, str], file: ModelFile, *, plugin: bool = False
) -> tuple[np.ndarray, dict[str, int]]:
    """Run a file's golden sample in another Python.

    Args:
        where: name of the place, for the error.
        command: the Python to start, with numpy and onnxruntime.
        environment: its environment variables.
        file: of a bundle that has been verified.
        plugin: whether to run on Qualcomm's provider, as far as it takes the nodes.

    Returns:
        The logits, and how many node runs each provider had (counted for a plugin only).

    Raises:
        ExportError: it ended with an error, was killed by a signal, or did not end.
    """
    fix = "Check the bundle on cpu first; where that passes, this runtime cannot run the model"
    with tempfile.TemporaryDirectory() as scratch:
        pieces = [str(Path(scratch, f"{index}.npy")) for index in range(len(file.pieces))]
        for path, piece in zip(pieces, file.pieces, strict=True):
            np.save(path, piece)
        job = {
            "model": str(file.path.absolute()),
            "adapter": str(file.adapter.absolute()) if file.adapter else "",
            "plugin": plugin,
            "feed": file.feed,
            "output": file.output,
            "pieces": pieces,
            "to": str(Path(scratch, "found.npz")),
        }
        Path(scratch, "job.json").write_text(json.dumps(job))
        whole = [*command, "-", str(Path(scratch, "job.json"))]
        try:
            done = subprocess.run(
                whole,
                input=JOB.read_bytes(),
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_S,
                cwd=scratch,
                env=dict(environment),
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(where, f"must end within {_TIMEOUT_S} s", "no end", fix) from error
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines() or [""]
            raise ExportError(where, f"{file.path.name} must run", f"status {done.returncode} {told[-1][:300]}", fix)
        with np.load(Path(scratch, "found.npz")) as found:
            runs = dict(zip(found["providers"].tolist(), found["runs"].tolist(), strict=True))
            return found["logits"], runs
