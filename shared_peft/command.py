"""The command line of every package: one dataclass a subcommand, a runnable example first, errors not tracebacks."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared_peft.errors import SagaPeftError
from shared_peft.writing import advice

EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 2, 130, 141


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Args:
        name: the word typed after `python -m PACKAGE`.
        config: a dataclass whose fields become flags; attribute docstrings become the help text.
        run: called with the filled dataclass.
        summary: one line saying what it does.
        example: a runnable call, shown first in `--help`.
        place: where it stands in the overview, in the usual order of work.
    """

    name: str
    config: type
    run: Callable[[Any], object]
    summary: str
    example: str
    place: int = 50


def commands_in(package: str, path: Iterable[str]) -> tuple[Command, ...]:
    """Return the COMMAND of every module of a package, by place and name.

    Args:
        package: the package's ``__name__``.
        path: the package's ``__path__``.
    """
    modules = [importlib.import_module(f"{package}.{module.name}") for module in pkgutil.iter_modules(path)]
    found = [module.COMMAND for module in modules if hasattr(module, "COMMAND")]
    return tuple(sorted(found, key=lambda command: (command.place, command.name)))


def run_commands(program: str, commands: Sequence[Command], argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` and run the chosen subcommand.

    Args:
        program: the package name, as in `python -m program`.
        commands: the subcommands offered; a single one still needs its word.
        argv: arguments without the program name; None reads ``sys.argv``.

    Returns:
        The exit status: 0, 2 for a user's error, 130 when interrupted, 141 when nobody reads the output any more.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview(program, commands))
        return 0
    chosen = next((command for command in commands if command.name == arguments[0]), None)
    if chosen is None:
        names = ", ".join(command.name for command in commands)
        sys.stderr.write(f"python -m {program}: command must be one of {names}, got {arguments[0]!r}. Try --help.\n")
        return EXIT_USER_ERROR
    return run_command(f"{program} {chosen.name}", chosen, arguments[1:])


def run_command(program: str, command: Command, argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` into one command's dataclass and run it, without a word for the command.

    Args:
        program: what follows `python -m` in the help.
        command: the command.
        argv: arguments without the program name; None reads ``sys.argv``.

    Returns:
        The exit status: 0, 2 for a user's error, 130 when interrupted, 141 when nobody reads the output any more.
    """
    import tyro  # noqa: PLC0415  (slow to import; only the command line needs it)

    parsed = tyro.cli(
        command.config,
        prog=f"python -m {program}",
        description=f"Example: {command.example}\n\n{command.summary}",
        args=argv,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        command.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, `head` for example, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except SagaPeftError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_USER_ERROR
    except OSError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}. {advice(error)}".rstrip() + "\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Run the same command with --resume to go on.\n")
        return EXIT_INTERRUPTED
    return 0


def _overview(program: str, commands: Sequence[Command]) -> str:
    width = max(len(command.name) for command in commands)
    lines = [f"Example: {commands[0].example}", "", f"usage: python -m {program} COMMAND [options]", "", "commands:"]
    for command in commands:
        lines += [f"  {command.name:<{width}}  {command.summary}", f"  {'':<{width}}  {command.example}"]
    return "\n".join([*lines, "", f"python -m {program} COMMAND --help lists the options.", ""])
