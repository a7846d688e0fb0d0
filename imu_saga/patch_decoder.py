"""From tokens back to samples: each token rebuilds its own stretch of time."""

from torch import Tensor, nn
from torch.nn import functional


class PatchDecoder(nn.Module):
    """Tokens to samples: linear, GELU, linear, unfolded in time and cut to the window's length.

    Args:
        width: size of a token.
        patch: samples a token stands for.
        slots: channels to rebuild.
        samples: length of a window.
    """

    def __init__(self, width: int, patch: int, slots: int, samples: int) -> None:
        super().__init__()
        self.patch, self.samples = patch, samples
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, patch * slots)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return samples in the network's units, shape (windows, samples, slots)."""
        patches = self.out(functional.gelu(self.hidden(tokens)))
        return patches.unflatten(2, (self.patch, -1)).flatten(1, 2)[:, : self.samples]
