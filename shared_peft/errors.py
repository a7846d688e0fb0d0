"""One family of errors: each says where, what must hold, what came and what to do."""


class SagaPeftError(Exception):
    """Base of every error a user of this project can cause.

    Args:
        where: the layer, file, row, field or flag concerned.
        must: what must hold there.
        got: what came instead.
        fix: what to do about it, one sentence without the final period.

    Example:
        >>> str(RankError("blocks.3.conv1", "rank must be in [1, 64]", 96, "Lower r or exclude the layer"))
        'blocks.3.conv1: rank must be in [1, 64], got 96. Lower r or exclude the layer.'
    """

    def __init__(self, where: object, must: str, got: object, fix: str) -> None:
        super().__init__(where, must, got, fix)
        self.where, self.must, self.got, self.fix = where, must, got, fix

    def __str__(self) -> str:
        return f"{self.where}: {self.must}, got {self.got}. {self.fix.rstrip('.')}."


class ConfigError(SagaPeftError):
    """A configuration value or key that cannot be used."""


class UnknownNameError(SagaPeftError):
    """A name that no registry entry has."""


class TargetError(SagaPeftError):
    """Target modules that match nothing, or a layer that cannot be adapted."""


class RankError(SagaPeftError):
    """A rank outside what the layer's weight allows."""


class AdapterError(SagaPeftError):
    """An adapter name that is missing, taken, or used in a state that does not allow it."""


class MergeError(SagaPeftError):
    """A merge that would break the model: not finite, not mergeable, already merged."""


class CheckpointError(SagaPeftError):
    """A weight or adapter file that does not fit the model, or cannot be trusted."""


class DataError(SagaPeftError):
    """A recording, image, table or folder that cannot be used as it is."""


class RunError(SagaPeftError):
    """A run folder that is missing, incomplete, taken, or of another kind."""


class WriteError(SagaPeftError):
    """A file or folder that cannot be written: the disk is full, or the folder is closed to writing."""


class TrainingError(SagaPeftError):
    """Training that cannot go on: the loss is not finite, nothing is trainable."""


class ExportError(SagaPeftError):
    """An export that failed one of its checks."""


class MissingPackageError(SagaPeftError):
    """An optional package that is not installed; the message names the extra that brings it."""
