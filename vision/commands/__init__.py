"""The subcommands of `python -m vision`, one file each."""

from shared_peft.command import commands_in

COMMANDS = commands_in(__name__, __path__)
