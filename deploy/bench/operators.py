"""Where the time goes: onnxruntime's own profile of a model file, added up by operator."""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deploy.model_files import ModelFile
from deploy.multi.adapter_file import load_adapter, run_options
from shared_peft.packages import load_package

_ERRORS_ONLY = 3
_WARM_UP, _RUNS = 3, 20


def operator_shares(file: ModelFile) -> dict[str, float]:
    """Return the share of time of every operator of the optimised graph, the largest first; they add up to 1.

    Args:
        file: of a verified bundle; run on one thread.
    """
    onnxruntime = load_package("onnxruntime", "a profile", extra="deploy")
    adapter = None if file.adapter is None else load_adapter(file.adapter)
    run = None if adapter is None else run_options(adapter)
    feeds = {file.feed: file.sample.inputs[:1]}
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch, "profile"))
        session = onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        for _ in range(_WARM_UP + _RUNS):
            session.run([file.output], feeds, run)
        events = json.loads(Path(session.end_profiling()).read_text())
    return shares_of([event for event in events if event.get("cat") == "Node"], skipped=_WARM_UP)


def shares_of(events: Sequence[Mapping[str, Any]], *, skipped: int = 0) -> dict[str, float]:
    """Return the shares of time by operator: the median time of each node, added up.

    Args:
        events: with name, dur, args.op_name and args.node_index, in order of time, as onnxruntime writes them.
        skipped: runs of each node left out at the start.

    Example:
        >>> event = {"name": "a_kernel_time", "dur": 3, "args": {"op_name": "Gemm", "node_index": "0"}}
        >>> shares_of([event, {**event, "dur": 1, "args": {"op_name": "Relu", "node_index": "1"}}])
        {'Gemm': 0.75, 'Relu': 0.25}
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["args"]["node_index"]].append(event["dur"])
    spent: Counter[str] = Counter()
    for (operator, _), durations in times.items():
        spent[operator] += median(durations[skipped:])  # type: ignore[assignment]
    whole = max(1, spent.total())
    return {name: duration / whole for name, duration in spent.most_common()}
