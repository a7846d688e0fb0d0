"""A small convolutional network trained from scratch on the few labels alone, without augmentation (ours)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.baseline import BASELINES, Baseline
from imu_saga.finetune import FinetuneConfig, balanced_batches, predict_probabilities
from imu_saga.windows import WindowSet
from shared_peft.training import Batch, TrainConfig, train

WIDTHS = (32, 48, 64)
TAPS = 5
STEPS, EPOCHS, BATCH = 200, 10, 64  # at least so many steps, and so many passes over the windows
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01


class SmallNetwork(nn.Module):
    """Three strided convolutions, mean and maximum over time, one linear layer.

    Args:
        channels: number of input channels.
        classes: number of classes.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        layers = []
        for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False):
            convolution = nn.Conv1d(before, after, TAPS, stride=2, padding=TAPS // 2, bias=False)
            layers += [convolution, nn.BatchNorm1d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], classes)

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows in SI, shape (windows, samples, channels)."""
        found = self.body(((windows - self.mean) / self.deviation).mT)
        return self.head(torch.cat([found.mean(2), found.amax(2)], dim=1))


@BASELINES.register("cnn")
class SmallCnn(Baseline):
    """Three strided convolutions from scratch: about 30,000 parameters, no augmentation, 200 steps or 10 epochs."""

    def learn(self, windows: WindowSet) -> None:
        """Train, every class equally often in a batch."""
        config = TrainConfig(
            steps=max(STEPS, EPOCHS * len(windows) // BATCH),
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            warmup_steps=STEPS // 10,
            seed=self.seed,
        )
        drawing = FinetuneConfig(batch_size=BATCH, augment={}, seed=self.seed)
        codes = torch.from_numpy(self.seen)

        def objective(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
            return functional.cross_entropy(network(batch[0]), torch.searchsorted(codes, batch[1])), {}

        with torch.random.fork_rng(devices=()):  # the loop, too, seeds torch's own generator
            torch.manual_seed(self.seed)
            self.network = SmallNetwork(windows.x.shape[2], len(self.seen))
            x = torch.from_numpy(windows.x).flatten(0, 1)
            self.network.mean.copy_(x.mean(0))
            self.network.deviation.copy_(x.std(0).clamp(min=1e-3))
            train(self.network, objective, balanced_batches(windows, drawing), config)

    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the softmax of the logits."""
        return predict_probabilities(self.network, windows.x).numpy()
