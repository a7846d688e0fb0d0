"""Pixels prepared in the graph are those that Pillow and the training pipeline prepare, on real photographs."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deploy.preprocess import in_graph
from deploy.preprocess.vision import ImageInput, raw_pixels
from deploy.program import export_program
from deploy.targets.onnx import OnnxTarget
from shared_peft.errors import ExportError
from shared_peft.training import TrainedModel
from vision import transforms
from vision.backbones.family import DataConfig
from vision.datasets.decode import read_image

CONFIGS = {
    "bilinear, centre": DataConfig(24, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 0.875, "center"),
    "bicubic, centre": DataConfig(31, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9, "center"),
    "bicubic, squash": DataConfig(28, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", 1.0, "squash"),
}
TOLERANCE = 1.6e-5  # of a pixel in [0, 1]; measured between ONNX and Pillow


class _Pixels(nn.Module):
    """Returns its input, one row an image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)


@pytest.fixture(scope="module", params=list(CONFIGS))
def prepared(request, tmp_path_factory):
    """A configuration with an ONNX file that prepares and does nothing else."""
    data = CONFIGS[request.param]
    path = tmp_path_factory.mktemp("pixels") / "m.onnx"
    program = export_program(ImageInput(_Pixels(), data).eval(), (67, 45, 3), dtype=torch.uint8, free_axes=(0, 1))
    OnnxTarget().write(program, path, input_name="image", opset=20)
    return data, OnnxTarget().open(path, threads=1)


def _with_pillow(pixels: np.ndarray, data: DataConfig) -> np.ndarray:
    """Resize in Pillow's float mode, crop, normalise: nothing of ours but the target size."""
    side, shorter = int(data.size / data.crop_fraction), min(pixels.shape[:2])
    height, width = (
        side if data.crop_mode == "squash" else int(side * length / shorter) for length in pixels.shape[:2]
    )
    method = getattr(Image.Resampling, data.interpolation.upper())
    planes = [pixels[:, :, index].astype(np.float32) for index in range(3)]
    for size in ((width, len(pixels)), (width, height)):  # in 8 bits Pillow cuts overshoot off after either pass
        planes = [np.asarray(Image.fromarray(plane).resize(size, method)).clip(0, 255) for plane in planes]
    resized = np.stack(planes)
    top, left = (round((length - data.size) / 2) for length in (height, width))
    cropped = resized[:, top : top + data.size, left : left + data.size] / 255
    return (cropped - np.array(data.mean)[:, None, None]) / np.array(data.std)[:, None, None]


@pytest.mark.parametrize("size", [(64, 64), (97, 40), (40, 97), (20, 26), (33, 33), (24, 199)])
def test_any_size_of_image_is_prepared_as_pillow_does(prepared, size):
    data, run = prepared
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    got = run(pixels).reshape(2, 3, data.size, data.size)
    expected = np.stack([_with_pillow(each, data) for each in pixels])
    np.testing.assert_allclose(
        got * np.array(data.std)[:, None, None], expected * np.array(data.std)[:, None, None], rtol=0, atol=TOLERANCE
    )


def test_real_photographs_are_prepared_as_in_training_but_for_its_rounding(prepared, shared_root):
    data, run = prepared
    paths = sorted((shared_root / "data/vision/tiny_imagenet_10/test").rglob("*.jp*g"))[::50]
    assert len(paths) >= 10
    for number, path in enumerate(paths):
        image = read_image(path)
        image = image.expand(3, -1, -1)[:, : 64 - number]
        trained = transforms.normalise(transforms.fit_image(image, data)[None], data)
        got = run(image.permute(1, 2, 0)[None].numpy()).reshape(trained.shape)
        levels = 255 * np.abs(got - trained.numpy()) * np.array(data.std)[None, :, None, None]
        assert levels.max() <= 1.0  # half a level from rounding after either pass
        assert levels.mean() <= 0.3


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("sizes", [(40, 30), (30, 41), (7, 7), (112, 7), (224, 225)])
def test_resized_size_is_that_of_training(mode, sizes):
    data = DataConfig(8, (0.0,), (1.0,), crop_fraction=0.875, crop_mode=mode)
    assert ImageInput(nn.Identity(), data).resized(*sizes) == transforms.resized_size(*sizes, data)


def _trained(data: DataConfig) -> TrainedModel:
    torch.manual_seed(0)
    levels = torch.randint(0, 256, (6, 3, data.size, data.size), dtype=torch.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * data.size**2, 4))
    return TrainedModel(
        kind="vision",
        model=net.eval(),
        build_base=lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * data.size**2, 4)),
        input_name="image",
        input_shape=(3, data.size, data.size),
        classes=("a", "b", "c", "d"),
        preprocessing=transforms.describe_preprocessing(data),
        examples=transforms.normalise(levels, data),
    )


@pytest.mark.parametrize("data", CONFIGS.values(), ids=list(CONFIGS))
def test_raw_pixels_are_what_preprocessing_turned_into_the_inputs(data):
    trained = _trained(data)
    raw = raw_pixels(trained.examples, data)
    again = ImageInput(nn.Identity(), data)(raw)
    np.testing.assert_allclose(again.numpy(), trained.examples.numpy(), rtol=0, atol=1e-4)


def test_wrapped_run_takes_pixels_and_says_what_is_left_to_do():
    data = CONFIGS["bilinear, centre"]
    raw = in_graph(_trained(data))
    assert raw.examples.dtype == torch.uint8
    assert raw.input_shape == tuple(raw.examples.shape[1:]) == (54, 57, 3)
    assert raw.free_axes == (0, 1)
    assert raw.preprocessing["layout"].startswith("(batch, height, width, channels), uint8")
    assert raw.preprocessing["outside_the_graph"].startswith("decode")
    assert raw.preprocessing["inside_the_graph"]["mean"] == [0.5, 0.4, 0.3]
    assert raw.model(raw.examples).shape == (6, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"crop_mode": "border"}, "got a border is added"), ({"interpolation": "nearest"}, "got nearest")],
)
def test_steps_that_have_no_place_in_the_graph_are_refused(changes, message):
    data = DataConfig(**{"size": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3, **changes})
    with pytest.raises(ExportError, match=f"--preprocess in-graph: images must be resized by .*{message}"):
        in_graph(_trained(data))


def test_units_of_an_image_model_are_refused():
    with pytest.raises(ExportError, match="--units: must be left out for a model of vision, got acc=g"):
        in_graph(_trained(CONFIGS["bicubic, squash"]), ["acc=g"])
