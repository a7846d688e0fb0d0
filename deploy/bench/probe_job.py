"""Load time and peak memory of one model file in a fresh process: read from standard input, it imports no more.

Usage: python - job.json, with model, adapter, feed, output, row (a .npy file); prints JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_ERRORS_ONLY = 3
_LOADS = 5


def opened(job: dict[str, str]) -> Any:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])


def peak_mib() -> float:
    """Return the most memory this process has had [MiB], as Linux counts it; NaN elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return found[0] / 1024 if found else float("nan")


def main(job: dict[str, str]) -> dict[str, float]:
    """Load and run a model once, then load it again a few times."""
    bare, began = peak_mib(), time.perf_counter()
    session = opened(job)
    seconds = [time.perf_counter() - began]
    run = onnxruntime.RunOptions()
    run.log_severity_level = _ERRORS_ONLY
    adapter = onnxruntime.LoraAdapter()
    if job["adapter"]:
        adapter.Load(job["adapter"])
        run.add_active_adapter(adapter)
    session.run([job["output"]], {job["feed"]: np.load(job["row"])}, run)
    peak = peak_mib()
    for _ in range(_LOADS - 1):
        began = time.perf_counter()
        opened(job)
        seconds.append(time.perf_counter() - began)
    return {"load_ms": 1e3 * float(np.median(seconds)), "peak_mib": peak, "model_mib": peak - bare}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
