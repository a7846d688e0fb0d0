"""The subcommands of `python -m deploy`, one a file."""

from shared_peft.command import commands_in

COMMANDS = commands_in(__name__, __path__)
