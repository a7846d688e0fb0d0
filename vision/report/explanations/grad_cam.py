"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, Eq. 1 and 2) on the last feature map of any ConvNet."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shared_peft.errors import ConfigError
from vision.report.explanation import EXPLANATIONS, Explanation, enlarged


class LastFeatureMap(TorchFunctionMode):
    """Watch a forward pass and keep the last tensor that is an image: (batch, channels, height, width).

    Every function of torch is watched, not only modules, because many networks add a shortcut after their last block.

    Args:
        batch: images in the pass; weights and other tensors have another first size.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.found: torch.Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function and look at what it returns."""
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, torch.Tensor) and answer.requires_grad and self._is_map(answer.shape):
            self.found = answer
        return answer

    def _is_map(self, shape: torch.Size) -> bool:
        return len(shape) == 4 and shape[0] == self.batch and min(shape[1:]) > 1


class GradCam(Explanation):
    """Grad-CAM: the last feature map, its channels weighted by the mean gradient of the target's logit."""

    cost = 2
    title = "Grad-CAM"

    def suits(self, model: nn.Module, image: torch.Tensor) -> bool:
        """A model with convolutions whose last feature map is larger than its head's input."""
        return _watched(model, image)[1] is not None

    def explain(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return ReLU(sum over k of alpha_k A_k), enlarged; alpha_k is the mean over the map of d logit / d A_k."""
        logits, feature_map = _watched(model, images)
        if feature_map is None:
            fix = "Choose another explanation, occlusion for example"
            raise ConfigError("grad_cam", "the model must have a feature map made by convolutions", "none", fix)
        chosen = logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, feature_map)
        channels = _channel_axis(feature_map, images)
        space = [axis for axis in (1, 2, 3) if axis != channels]
        weights = gradient.mean(dim=space, keepdim=True)  # alpha, Eq. 1
        heat = (weights * feature_map.detach()).sum(dim=channels).relu()  # Eq. 2
        return enlarged(heat.float(), (images.shape[2], images.shape[3]))


def _watched(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits and the last feature map, both with their graph; no weight collects a gradient."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        with LastFeatureMap(len(images)) as watch:
            logits = model(inputs)
    return logits, None if _without_convolutions(model) else watch.found


def _channel_axis(feature_map: torch.Tensor, images: torch.Tensor) -> int:
    """Return 1, or 3 where height and width, of equal shape to the image's, come first (Swin, ConvNeXt's inside)."""
    height, width = images.shape[2:]
    first, last = feature_map.shape[1:3], feature_map.shape[2:4]
    return 3 if first[0] * width == first[1] * height and last[0] * width != last[1] * height else 1


def _without_convolutions(model: nn.Module) -> bool:
    """Tell whether nothing but a patch embedding is a convolution: its output is no picture of what was found."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) < 2


EXPLANATIONS.register("grad_cam")(GradCam())
