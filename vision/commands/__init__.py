"""The subcommands of `python -m vision`, one file each."""

from vision.commands.compare import COMMAND as COMPARE
from vision.commands.evaluate import COMMAND as EVALUATE
from vision.commands.finetune import COMMAND as FINETUNE
from vision.commands.predict import COMMAND as PREDICT
from vision.commands.pretrain import COMMAND as PRETRAIN
from vision.commands.tsd import COMMAND as TSD

COMMANDS = (FINETUNE, EVALUATE, PREDICT, COMPARE, PRETRAIN, TSD)
