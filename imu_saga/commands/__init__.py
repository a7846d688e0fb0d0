"""The subcommands of `python -m imu_saga`, one file each."""

from imu_saga.commands.compare import COMMAND as COMPARE
from imu_saga.commands.evaluate import COMMAND as EVALUATE
from imu_saga.commands.finetune import COMMAND as FINETUNE
from imu_saga.commands.predict import COMMAND as PREDICT
from imu_saga.commands.pretrain import COMMAND as PRETRAIN
from imu_saga.commands.search import COMMAND as SEARCH
from imu_saga.commands.tsd import COMMAND as TSD

COMMANDS = (PRETRAIN, SEARCH, FINETUNE, EVALUATE, PREDICT, COMPARE, TSD)
