"""Masked-image pretraining of a ViT: guess the pixels of hidden patches (SimMIM, Xie et al. 2021, arXiv:2111.09886).

As there: hidden patches are replaced by one learned token after the patch embedding, one linear layer guesses their
pixels from the last tokens, and the loss is the mean absolute error of the hidden pixels (Sections 3.2 to 3.5). Ours: a
hidden patch is one patch of the model, for images are small.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from shared_peft.errors import ConfigError
from shared_peft.training import Batch, RunFolder, on_main, train
from shared_peft.weights import write_tensors
from vision.backbones import Backbone
from vision.finetune import FinetuneResult, Prepared
from vision.fit import train_config
from vision.objectives.objective import OBJECTIVES, Objective, Pretraining
from vision.transforms import make_batches, normalise

HIDDEN_SHARE = 0.6  # of the patches, as in Table 2 of the paper
TEST_SEED, TEST_BATCH = 0, 128


class MaskedImages(nn.Module):
    """A ViT whose last tokens guess the pixels of patches it does not see.

    Args:
        model: the ViT, with `patch_embed`, `forward_features` and `num_prefix_tokens`.
        channels: of the images.
    """

    def __init__(self, model: Any, channels: int) -> None:
        super().__init__()
        self.model, projection = model, model.patch_embed.proj
        self.side = int(projection.kernel_size[0])  # [px]
        self.token = nn.Parameter(torch.zeros(projection.out_channels))
        self.decoder = nn.Linear(projection.out_channels, channels * self.side**2)

    def forward(self, images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, size, size) and hidden patches (batch, patches) to guesses.

        Returns:
            Pixels of every patch, shape (batch, patches, channels * side * side).
        """

        def hide(module: nn.Module, given: Any, tokens: torch.Tensor) -> torch.Tensor:
            places = hidden.reshape(tokens.shape[:-1])[..., None]  # tokens may come as a grid
            return torch.where(places, self.token.to(tokens.dtype), tokens)

        handle = self.model.patch_embed.register_forward_hook(hide)
        try:
            tokens = self.model.forward_features(images)
        finally:
            handle.remove()
        return self.decoder(tokens[:, self.model.num_prefix_tokens :])

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pixels of every patch, shape (batch, patches, channels * side * side)."""
        return nn.functional.unfold(images, self.side, stride=self.side).transpose(1, 2)

    def error(self, images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute error of the hidden pixels, a scalar."""
        return hidden_error(self(images, hidden).float(), self.patches(images), hidden)


def hidden_error(guesses: torch.Tensor, patches: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error over hidden patches; both (batch, patches, values), hidden (batch, patches)."""
    return ((guesses - patches).abs().mean(dim=2) * hidden).sum() / hidden.sum().clamp_min(1)


def draw_hidden(images: int, patches: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Choose the same number of patches in every image; bool, shape (images, patches)."""
    count = max(1, round(HIDDEN_SHARE * patches))
    places = torch.rand(images, patches, generator=generator).argsort(dim=1)
    return places < count


def freeze_unreached(masked: MaskedImages, images: torch.Tensor) -> None:
    """Freeze what no guess depends on, such as the head; processes that train together need to know."""
    masked.error(images, draw_hidden(len(images), masked.patches(images).shape[1])).backward()
    for parameter in masked.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def _check(backbone: Backbone) -> None:
    model: Any = backbone.model
    if not all(hasattr(model, name) for name in ("patch_embed", "forward_features", "num_prefix_tokens")):
        fix = "Choose a ViT such as small_vit or vit_cifar10, or --objective supervised"
        raise ConfigError("--objective masked", "needs a ViT", backbone.spec.name, fix)


def _run(folder: RunFolder, given: Pretraining) -> FinetuneResult:
    backbone, prepared, settings = given.backbone, given.prepared, given.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        masked = MaskedImages(backbone.model, backbone.data.channels)
    freeze_unreached(masked, normalise(prepared.train.values[:1], backbone.data))

    def objective(model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        masked.train()
        images, patches = batch[0], batch[1].shape[1]
        guesses = model(images, hidden := draw_hidden(len(images), patches).to(images.device))
        return hidden_error(guesses.float(), masked.patches(images), hidden), {}

    batches = make_batches(prepared.train, backbone.data, settings.batch_size, settings.augment, settings.seed)
    grid = (backbone.data.size // masked.side) ** 2

    def unlabelled(index: int) -> Batch:
        images = batches(index)[0]
        return [images, torch.zeros(len(images), grid)]

    with ExitStack() as held:
        on_main(lambda: _hold(held, folder))
        result = train(
            masked,
            objective,
            unlabelled,
            train_config(settings, len(prepared.train.labels)),
            folder=folder,
            resume=given.resume,
            progress="masked" if given.progress else None,
        )
        return on_main(lambda: _write(folder, backbone, masked.eval(), prepared, result.done, result.seconds))


def _hold(held: ExitStack, folder: RunFolder) -> None:
    held.enter_context(folder.locked())


def _write(
    folder: RunFolder, backbone: Backbone, masked: MaskedImages, prepared: Prepared, steps: int, seconds: float
) -> FinetuneResult:
    error, blank = errors_on(masked, normalise(prepared.test.values, backbone.data))
    counts = {"head": 0, "body": sum(p.numel() for p in masked.parameters() if p.requires_grad)}
    results = {
        "objective": "masked",
        "hidden_error": error,
        "blank_error": blank,
        "relative_error": error / blank,
        "parameters": {"trainable": counts["body"], **counts, "total": sum(p.numel() for p in masked.parameters())},
        "steps": steps,
        "train_seconds": round(seconds, 3),
        "train_images": len(prepared.train.labels),
        "skipped_images": list(prepared.test.skipped),
    }
    write_tensors(folder.path / "model.safetensors", backbone.model.state_dict())
    folder.write("results.json", results)
    return FinetuneResult(folder.path, results)


@torch.inference_mode()
def errors_on(masked: MaskedImages, images: torch.Tensor) -> tuple[float, float]:
    """Return the mean absolute error of hidden pixels, and that of guessing each image's mean colour.

    Args:
        masked: in eval mode.
        images: normalised, shape (images, channels, size, size); what is hidden in them is always the same.
    """
    generator = torch.Generator().manual_seed(TEST_SEED)
    device, totals = next(masked.parameters()).device, torch.zeros(2, dtype=torch.float64)
    for part in images.split(TEST_BATCH):
        shown = part.to(device)
        patches = masked.patches(shown)
        hidden = draw_hidden(len(part), patches.shape[1], generator).to(device)
        blank = masked.patches(shown.mean(dim=(2, 3), keepdim=True).expand_as(shown))
        found = masked.error(shown, hidden), hidden_error(blank, patches, hidden)
        totals += len(part) * torch.tensor([float(value) for value in found], dtype=torch.float64)
    return float(totals[0] / len(images)), float(totals[1] / len(images))


OBJECTIVES.register("masked")(Objective("guess the pixels of hidden patches", _check, _run))
