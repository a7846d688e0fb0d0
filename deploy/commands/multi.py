"""`python -m deploy multi BASE --adapters TASK=RUN ... --out BUNDLE`: one base graph, one small file a task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from deploy.bundle import DEFAULT_OPSET
from deploy.commands.say import say
from deploy.multi import export_multi, load_tasks
from shared_peft.command import Command
from shared_peft.errors import ConfigError


@dataclass(frozen=True)
class MultiConfig:
    """Options of `multi`."""

    base: Positional[Path]
    """The run or checkpoint that all tasks were fine-tuned from; or a folder of packed tasks."""
    out: Path
    """Folder of the bundle to write; must not exist."""
    adapters: tuple[str, ...] = ()
    """Fine-tuning runs as TASK=RUN; none takes every task of a packed folder."""
    opset: int = DEFAULT_OPSET
    """ONNX operator set version; 18 to 20 is what phones know."""
    int8: Literal["auto", "none"] = "none"
    """auto: the base in int8, too, a quarter of the size; the same adapter files fit it."""
    max_drop: float = 1.0
    """Largest loss of a task's accuracy in int8 [percentage points], on the runs' validation data."""


def multi(config: MultiConfig) -> None:
    """Export one base with the adapters of several runs and say what was written."""
    runs = named_runs(config.adapters)
    mark, tasks = load_tasks(config.base, runs)
    secrets = tuple(path.absolute() for path in (config.base, *runs.values()))
    manifest = export_multi(
        mark,
        tasks,
        config.out,
        opset=config.opset,
        int8=config.int8,
        max_drop=config.max_drop,
        secrets=secrets,
        report=say,
    )
    sizes = [manifest.files[manifest.model_file], *(manifest.files[task.file] for task in manifest.tasks.values())]
    base, *adapters = (entry.size_bytes for entry in sizes)
    say(f"{config.out}: base {base / 1e6:.2f} MB, {len(adapters)} adapters {sum(adapters) / 1e6:.2f} MB, gates passed")


def named_runs(texts: tuple[str, ...]) -> dict[str, Path]:
    """Return run folders by task name.

    Raises:
        ConfigError: a text that is not TASK=RUN, or two of one name.

    Example:
        >>> named_runs(("user=runs/user",))["user"].name
        'user'
    """
    runs: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path or name in runs:
            raise ConfigError("--adapters", "must be TASK=RUN, each task once", repr(text), "Write activity=runs/one")
        runs[name] = Path(path)
    return runs


COMMAND = Command(
    "multi",
    MultiConfig,
    multi,
    "Export one base graph and one small adapter file a task.",
    "python -m deploy multi runs/pretrain --adapters activity=runs/activity user=runs/user --out runs/multi",
    place=15,
)
