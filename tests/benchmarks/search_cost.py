"""What a search of 16 trials costs beside one pre-training, on synthetic people; where a trial's time goes.

Both are shortened alike: STEPS of pre-training instead of 2000, and fine-tuning steps in proportion to the default's.
The bar: at least 15 trials in at most three times one pre-training.

Run: python -m tests.benchmarks.search_cost [STEPS] [SCHEDULER WORKERS]
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import SearchConfig, open_executor, search
from imu_saga.source import DataOptions, load_split
from shared_peft.training import RunFolder

DEFAULT_STEPS = 300
BAR = 3.0


def main() -> None:
    """Print a table: seconds, and multiples of one pre-training."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_STEPS
    scheduler, workers = (sys.argv[2].strip("-"), int(sys.argv[3])) if len(sys.argv) > 3 else ("", 1)
    torch.set_num_threads(1)
    full, whole = SearchConfig(), PretrainConfig()
    loaded = load_split(DataOptions(), unlabelled=True)
    windows = loaded.windows.subset(loaded.split.train)
    config = PretrainConfig(steps=steps)
    finetune_steps = max(1, round(full.finetune_steps * steps / whole.steps))
    with tempfile.TemporaryDirectory() as name, open_executor(workers, scheduler) as (executor, at_once):
        root = Path(name)
        pre = RunFolder.create(root / "pre", "imu_saga.pretrain", {})
        began = time.perf_counter()
        pretrain(windows, config, pre, progress=None)
        one = time.perf_counter() - began
        sys.stdout.write(f"{len(windows)} windows, pre-training of {steps} steps: {one:.1f} s\n\n")
        sys.stdout.write("| search | trials | wall [s] | pre-trainings | pre-training part | fine-tuning | other |\n")
        sys.stdout.write("|---|---|---|---|---|---|---|\n")
        base = replace(full, finetune_steps=finetune_steps, least_gain=0.0)
        for label, chosen in (
            ("default", base),
            ("stops early", replace(base, least_gain=None)),
            ("0.05, a third to 0.15", replace(base, fraction=0.05, continued=0.15)),
        ):
            folder = RunFolder.create(root / label.replace(" ", "_"), "imu_saga.search", {})
            began = time.perf_counter()
            result = search(windows, root / "pre", config, chosen, folder, executor=executor, workers=at_once)
            wall = time.perf_counter() - began
            parts = np.array([[trial["pretraining_s"], trial["finetuning_s"]] for trial in result.trials]).sum(0)
            shares = [*(parts / parts.sum()), max(0.0, 1 - parts.sum() / (wall * at_once))]
            said = " | ".join(f"{100 * share:.0f} %" for share in shares)
            met = "" if wall <= BAR * one else " (above the bar)"
            sys.stdout.write(f"| {label} | {len(result.trials)} | {wall:.1f} | {wall / one:.2f}{met} | {said} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
