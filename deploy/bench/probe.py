"""Load time and peak memory of a model file, measured in a fresh process."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.model_files import ModelFile
from shared_peft.errors import ExportError

JOB = Path(__file__).parent / "probe_job.py"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Probe:
    """What a fresh process took.

    Args:
        load_ms: median time to open the file [ms].
        peak_mib: most memory the process had: Python, onnxruntime and the model [MiB].
        model_mib: of that, what came after the packages were loaded [MiB].
    """

    load_ms: float
    peak_mib: float
    model_mib: float


def probe(file: ModelFile) -> Probe:
    """Open and run a file in a fresh process, on one thread.

    Raises:
        ExportError: the process failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        row, job = Path(scratch, "row.npy"), Path(scratch, "job.json")
        np.save(row, file.sample.inputs[:1])
        paths = {"model": file.path, "adapter": file.adapter, "row": row}
        values = {name: str(path.absolute()) if path else "" for name, path in paths.items()}
        job.write_text(json.dumps({**values, "feed": file.feed, "output": file.output}))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-", str(job)],
            input=JOB.read_bytes(),
            capture_output=True,
            check=False,
            cwd=scratch,
            env=environment,
            timeout=_TIMEOUT_S,
        )
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        got = f"status {done.returncode} {told[-1][:300]}"
        raise ExportError(file.name, "must run in a fresh process", got, "Check the bundle first")
    return Probe(**json.loads(done.stdout))
