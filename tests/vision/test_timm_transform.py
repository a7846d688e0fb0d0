"""Our resizing, cropping and normalising beside timm's own evaluation transform, on real images."""

import numpy as np
import pytest
import torch
from PIL import Image

from vision.backbones import build_backbone
from vision.datasets import open_images
from vision.transforms import fit_image, normalise

# by their data configs: bicubic, crop 0.95; bilinear 0.95; bicubic 0.9 (224 / 0.9 is no whole number); 0.875; 1.0
MODELS = ("test_vit", "test_resnet", "vit_tiny_patch16_224", "mobilenetv3_small_050", "test_mambaout")
CONFIGS = [
    *((name, {}) for name in MODELS),
    *(("test_vit", {"crop_mode": mode, "crop_pct": part}) for mode in ("squash", "border") for part in (0.9, 1.0)),
]
OTHER_ORDER = 7, 0.2  # Pillow squashes an upright image's height before its width, and clips bicubic swings between
LARGEST, MEAN = 2, 0.06  # grey levels of 255: Pillow rounds between its two passes, torch elsewhere


@pytest.fixture(scope="module")
def real_images(shared_root) -> list[torch.Tensor]:
    """A small photograph, a mosaic of 60 wider than high, and it upright: sizes to enlarge and to reduce."""
    photos = open_images(str(shared_root / "data" / "vision" / "tiny_imagenet_10")).test
    tiles = [photos.read(row) for row in range(0, 480, 8)]
    tiles = [tile.expand(3, -1, -1) for tile in tiles]
    mosaic = torch.cat([torch.cat(tiles[row : row + 10], 2) for row in range(0, 60, 10)], 1)[:, :-3, :-5]
    return [tiles[0], mosaic, mosaic.transpose(1, 2).contiguous()]


@pytest.mark.parametrize(("name", "changes"), CONFIGS)
def test_the_input_is_what_timm_would_make_of_the_image(name, changes, real_images):
    backbone = build_backbone(f"timm/{name}", 3, options={"pretrained_cfg_overlay": changes})
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(backbone.model)
    assert all(config[key] == value for key, value in changes.items())
    transform = create_transform(**config, is_training=False)
    std = torch.tensor(config["std"])[:, None, None]
    for image in real_images:
        expected = transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
        found = normalise(fit_image(image, backbone.data)[None], backbone.data)[0]
        assert found.shape == expected.shape
        upright = image.shape[1] > image.shape[2]
        largest, mean = OTHER_ORDER if upright and config["crop_mode"] == "squash" else (LARGEST, MEAN)
        apart = ((found - expected) * std * 255).abs().numpy()
        assert apart.round().max() <= largest  # whole levels, behind the rounding of the normalised floats
        assert np.mean(apart) <= mean
