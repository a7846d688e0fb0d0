"""The project's own architectures with filled adapters, as trained models, for tests and benchmarks."""

import torch
from torch import nn

from imu_saga.encoder import build_encoder
from imu_saga.finetune import FinetuneConfig, attach_method
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from shared_peft.training import TrainedModel
from vision.adapt import adapt
from vision.backbones.build import build_backbone, build_from_spec

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
WINDOWS = {
    "limu": InputSpec(CHANNELS, 20.0, 120),
    "saga": InputSpec(CHANNELS, 100.0, 200),
    "resnet1d": InputSpec(CHANNELS, 50.0, 100),
    "gru": InputSpec(CHANNELS, 50.0, 100),
}
IMAGE_BACKBONES = ("resnet20", "vit_cifar10", "vit_cifar10_postnorm", "small_conv", "small_vit")


def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every trainable parameter a little, as training would; return the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval().requires_grad_(False)


def image_model(backbone: str, method: str, classes: int = 10) -> TrainedModel:
    """Return a vision backbone adapted with ``method``."""
    built = build_backbone(backbone, classes)
    data = built.data
    shape = (data.channels, data.size, data.size)
    model = fill(adapt(built, method, {"r": 2}).model)
    return _trained("vision", model, lambda: build_from_spec(built.spec).model, "image", shape, classes, backbone)


def window_model(encoder: str, method: str, classes: int = 6) -> TrainedModel:
    """Return an IMU classifier adapted with ``method``."""
    spec = WINDOWS[encoder]
    torch.manual_seed(0)
    config = FinetuneConfig(method=method, encoder=encoder, r=4)
    model = fill(attach_method(Classifier(build_encoder(encoder, spec), classes), config))
    shape = (spec.samples, len(spec.channels))

    def base() -> nn.Module:
        return Classifier(build_encoder(encoder, spec), classes)

    return _trained("imu_saga", model, base, "window", shape, classes, encoder)


def _trained(kind, model, base, name, shape, classes, backbone) -> TrainedModel:
    return TrainedModel(
        kind=kind,
        model=model,
        build_base=base,
        input_name=name,
        input_shape=shape,
        classes=tuple(f"class {index}" for index in range(classes)),
        preprocessing={"layout": "as the model takes it"},
        examples=torch.randn(8, *shape, generator=torch.Generator().manual_seed(2)),
        details={"backbone": backbone},
    )
