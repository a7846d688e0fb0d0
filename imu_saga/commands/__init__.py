"""The subcommands of `python -m imu_saga`, one file each."""

from shared_peft.command import commands_in

COMMANDS = commands_in(__name__, __path__)
