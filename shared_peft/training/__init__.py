"""What vision and imu_saga share in training: the one loop, the run folder, the metrics."""

from shared_peft.training.difference import Difference
from shared_peft.training.loop import TrainResult, train
from shared_peft.training.metrics import Classification, score_classification
from shared_peft.training.order import epoch_order
from shared_peft.training.processes import is_main, on_main, one_voice
from shared_peft.training.run import RunFolder, package_versions
from shared_peft.training.step import Batch
from shared_peft.training.train_config import TrainConfig
from shared_peft.training.trained import LabelledRows, TrainedModel

__all__ = [
    "Batch",
    "Classification",
    "Difference",
    "LabelledRows",
    "RunFolder",
    "TrainConfig",
    "TrainResult",
    "TrainedModel",
    "epoch_order",
    "is_main",
    "on_main",
    "one_voice",
    "package_versions",
    "score_classification",
    "train",
]
