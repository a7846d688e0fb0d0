"""One model file answered by any Python that has numpy and onnxruntime: read from standard input, it imports no more.

Usage: python - job.json, with model, adapter, plugin, feed, output, pieces (files of .npy), and to (a file to write).
"""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_ERRORS_ONLY = 3
_CHIP = "57"  # SM8650, Snapdragon 8 Gen 3


def main(job: dict) -> None:
    """Run a job and write its logits, and how many node runs each provider had."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    options.enable_profiling = bool(job["plugin"])
    options.profile_file_prefix = job["to"]
    providers = None if job["plugin"] else ["CPUExecutionProvider"]
    if job["plugin"]:
        qnn = importlib.import_module("onnxruntime_qnn")
        name = qnn.get_ep_name()
        onnxruntime.register_execution_provider_library(name, qnn.get_library_path())
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
        # without a chip that computes in half precision it takes no node, or finds no memory for fp32
        settings = {"soc_model": _CHIP, "enable_htp_fp16_precision": "1", "backend_path": qnn.get_qnn_htp_path()}
        options.add_provider_for_devices(devices[:1], settings)
    session: Any = onnxruntime.InferenceSession(job["model"], options, providers=providers)
    run = onnxruntime.RunOptions()
    run.log_severity_level = _ERRORS_ONLY
    adapter = onnxruntime.LoraAdapter()
    if job["adapter"]:
        adapter.Load(job["adapter"])
        run.add_active_adapter(adapter)
    found = [session.run([job["output"]], {job["feed"]: np.load(piece)}, run)[0] for piece in job["pieces"]]
    runs: Counter = Counter()
    if job["plugin"]:
        events = json.loads(Path(session.end_profiling()).read_text())
        runs.update(event["args"]["provider"] for event in events if event.get("args", {}).get("provider"))
    np.savez(job["to"], logits=np.concatenate(found), providers=list(runs), runs=list(runs.values()))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
