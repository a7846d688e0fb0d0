"""The pages of docs/reference, from commands and public names: `python -m tests.reference_pages` writes them.

An API reference by rendering docstrings would repeat them; here stands what there is, and `help()` has the rest.
"""

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import get_args

from shared_peft.atomic import write_text
from shared_peft.command import Command

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PROGRAMS = {
    "vision": "images",
    "imu_saga": "motion sensors",
    "deploy": "phones",
}
LIBRARY = {
    "shared_peft": "adapters for any torch module",
    "vision.backbones": "image backbones",
    "vision.datasets": "image data sets",
    "vision.finetune": "few-shot fine-tuning of images",
    "vision.compare": "comparisons",
    "imu_saga.datasets": "motion data sets",
    "imu_saga.recording": "recordings in SI units",
    "imu_saga.synthetic": "generated people",
    "imu_saga.encoder": "motion encoders",
    "imu_saga.input_spec": "what an encoder is fed",
    "imu_saga.pretrain": "Saga pre-training",
    "imu_saga.finetune": "few-label fine-tuning",
    "imu_saga.predict": "answers for a file",
    "deploy": "bundles",
    "deploy.runtime": "running a bundle",
}


def reference_pages() -> dict[str, str]:
    """Return every generated page of docs/reference by its file's name."""
    return {"commands.md": commands_page(), "python.md": python_page()}


def commands_page() -> str:
    """Return the outline of every command line, as its own --help says it."""
    sections = ["# Commands\n\n`python -m PACKAGE COMMAND --help` lists a command's options, with their defaults."]
    for program, about in PROGRAMS.items():
        sections.append(f"## {program}: {about}")
        for command in importlib.import_module(f"{program}.commands").COMMANDS:
            sections.append(_command(program, command))
    return "\n\n".join(sections) + "\n"


def python_page() -> str:
    """Return the public names of the modules a program imports from, with what each is."""
    sections = [
        "# Python\n\nThe modules that a program of one's own imports from, and their public names. `help(NAME)` gives "
        "arguments, units, errors and examples."
    ]
    for name, about in LIBRARY.items():
        module = importlib.import_module(name)
        rows = [f"| `{public}` | {_about(getattr(module, public))} |" for public in public_names(module)]
        table = "\n".join(["| name | what it is |", "|---|---|", *rows])
        sections.append(f"## {name}: {about}\n\n{table}")
    return "\n\n".join(sections) + "\n"


def public_names(module: object) -> list[str]:
    """Return a module's ``__all__``, or without one the documented classes and functions that it defines itself."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not inspect.ismodule(getattr(module, name))]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]  # type: ignore[attr-defined]
    return sorted(name for name in own if not name.startswith("_") and inspect.getdoc(vars(module)[name]))


def _command(program: str, command: Command) -> str:
    return (
        f"### {program} {command.name}\n\n{command.summary}\n\n```text\n{command.example}\n```\n\n{_options(command)}"
    )


def _options(command: Command) -> str:
    """Return the names of a command's own options; what they mean stands in --help."""
    fields = dataclasses.fields(command.config)
    choices = [get_args(choice)[0] for field in fields for choice in get_args(field.type) if get_args(choice)]
    if any(dataclasses.is_dataclass(choice) for choice in choices):
        return "It has subcommands; `--help` lists them."
    names = []
    for field in fields:
        nested = [field] if not dataclasses.is_dataclass(field.type) else dataclasses.fields(field.type)
        names += [f"`{each.name.replace('_', '-')}`" for each in nested]
    return "Options: " + ", ".join(names) + "."


def _about(value: object) -> str:
    """Return the first sentence of what documents a name; of a plain value its type."""
    documented = value if inspect.isclass(value) or inspect.isroutine(value) else None
    if documented is None:
        kind = getattr(value, "kind", "")
        return f"registry: {kind}" if kind else f"a {type(value).__name__}"
    text = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


def main() -> None:
    """Write every page."""
    for name, text in reference_pages().items():
        write_text(REFERENCE / name, text)


if __name__ == "__main__":
    main()
