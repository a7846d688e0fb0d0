"""Tell the whole window's statistics from what the mask leaves (ours; docs/RESULTS.md measures it against rebuilding).

What tells activities apart are statistics of a window, and a sample that can be interpolated teaches little about them.
The target is fixed, so nothing can collapse, and it is taken from the window before augmentation: the encoder learns
to see through a turned or noisy device, too.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.encoder import Encoder
from imu_saga.heads import Standardise
from imu_saga.objective import OBJECTIVES, Objective
from imu_saga.signal.features import WindowFeatures

HIDDEN = 256  # ours


@OBJECTIVES.register("statistics")
class StatisticsTeller(Objective):
    """Huber loss between told and true standardised features of `imu_saga.signal.features`.

    Args:
        encoder: the backbone; two linear layers on the mean and maximum of its tokens are trained beside it.
    """

    citation: ClassVar[str] = "ours"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        spec = encoder.spec
        self.features = WindowFeatures(spec.channels, spec.rate_hz, spec.samples)
        count = len(self.features.names)
        self.standardise = Standardise(count)
        self.teller = nn.Sequential(nn.Linear(2 * encoder.width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, count))

    @torch.no_grad()
    def prepare(self, truth: Tensor) -> None:
        """Take the features' mean and deviation from training windows."""
        self.standardise.fit(self.features(truth))

    def forward(self, shown: Tensor, mask: Tensor, valid: Tensor, truth: Tensor) -> Tensor:
        """Return each window's loss, shape (windows,)."""
        tokens = self.encoder(shown.masked_fill(mask, 0.0))
        told = self.teller(torch.cat([tokens.mean(1), tokens.amax(1)], dim=1))
        with torch.no_grad():
            wanted = self.standardise(self.features(truth))
        return functional.smooth_l1_loss(told, wanted, reduction="none").mean(1)
