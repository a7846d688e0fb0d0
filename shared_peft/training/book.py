"""What a run tells while it goes on: the progress bar, and metrics.jsonl."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from shared_peft.training.run import RunFolder

ON_SCREEN_S, IN_A_LOG_S = 0.5, 30.0  # ours: between two states of the bar on a terminal, and in a file


class Book:
    """Keeps the progress bar and metrics.jsonl of a run up to date.

    Args:
        steps: steps of the whole run.
        first: steps done before; log lines of later ones, left by a killed run, are taken out.
        folder: whose metrics.jsonl to write; None writes none.
        progress: label of the progress bar; None shows none.
    """

    def __init__(self, steps: int, first: int, folder: RunFolder | None, progress: str | None) -> None:
        self.folder, self.started = folder, time.perf_counter()
        self.bar = _progress_bar(progress, steps, first)
        if folder is not None:
            folder.forget_after(first)

    def keep(self, done: int, loss: float, rows: int, values: Mapping[str, float], *, line: bool) -> None:
        """Record that ``done`` steps are done, ``rows`` rows in this call; ``line`` writes ``values`` to the log."""
        seconds = time.perf_counter() - self.started
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {rows / max(seconds, 1e-9):.0f} rows/s", refresh=False)
            self.bar.update()
        if self.folder is not None and line:
            self.folder.log(step=done, loss=loss, seconds=round(seconds, 3), **values)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


def _progress_bar(label: str | None, total: int, initial: int) -> Any:
    if label is None:
        return None
    from shared_peft.progress import Bar  # noqa: PLC0415

    pause_s = ON_SCREEN_S if sys.stderr.isatty() else IN_A_LOG_S
    return Bar(total=total, initial=initial, desc=label, unit="step", dynamic_ncols=True, mininterval=pause_s)
