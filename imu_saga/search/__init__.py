"""Low-cost search of the loss weights for a task (Saga, arXiv:2504.11726; protocol and constants ours)."""

from imu_saga.search.config import SearchConfig
from imu_saga.search.engine import SearchResult, search
from imu_saga.search.executors import open_executor
from imu_saga.search.labels import label_folds
from imu_saga.search.trial import TrialOutcome, TrialTask, run_trial
from imu_saga.search.warm_start import TRIALS_FILE, KnownTrial, read_known

__all__ = [
    "TRIALS_FILE",
    "KnownTrial",
    "SearchConfig",
    "SearchResult",
    "TrialOutcome",
    "TrialTask",
    "label_folds",
    "open_executor",
    "read_known",
    "run_trial",
    "search",
]
