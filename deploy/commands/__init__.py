"""The subcommands of `python -m deploy`, one a file."""

from deploy.commands.check import CHECK
from deploy.commands.export import EXPORT

COMMANDS = (EXPORT, CHECK)
