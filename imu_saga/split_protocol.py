"""What every way of splitting offers, and the registry they stand in: named folds whose sides are checked apart."""

import abc
from collections.abc import Iterator
from typing import ClassVar

from imu_saga.splits import PEOPLE_APART, Kind, Split, check_apart
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError
from shared_peft.registry import Registry


class SplitProtocol(abc.ABC):
    """Splits windows into folds; a concrete one is a frozen dataclass whose fields are its options.

    Class attributes say what holds for every option: the registered ``name``, the ``warning`` to print beside every
    score (empty where scores are honest), and whether classes that the training side never shows are left out of the
    test side (``leaves_out_unseen``) instead of counting as errors.
    """

    name: ClassVar[str]
    warning: ClassVar[str] = ""
    leaves_out_unseen: ClassVar[bool] = False

    @property
    def apart(self) -> tuple[Kind, ...]:
        """What never stands on both sides of a fold."""
        return PEOPLE_APART

    @abc.abstractmethod
    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the folds, unchecked."""

    def folds(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the folds in a fixed order, a function of the windows and the options.

        Raises:
            DataError: windows this protocol cannot split, an empty side, or (never, we hope) a leak.
        """
        for split in self.draw(windows):
            for side, rows in (("training", split.train), ("test", split.test)):
                if not len(rows):
                    fix = "Try another --split-seed or --protocol, or add recordings"
                    raise DataError(f"protocol {self.name}, {split}", f"the {side} side must hold windows", "none", fix)
            check_apart(windows, split.train, split.test, what="training and test", kinds=self.apart)
            yield split


PROTOCOLS: Registry[type[SplitProtocol]] = Registry("split protocol")
