"""Every backbone family, unasked: shapes, determinism, adapters; and what is refused."""

import pytest
import torch

from shared_peft import METHODS
from shared_peft.errors import CheckpointError, ConfigError, MergeError, UnknownNameError
from shared_peft.weights import write_tensors
from vision.adapt import adapt
from vision.backbones import BACKBONES, build_backbone, build_from_spec, find_family

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered", "ignore:.* runs beside dense layers only")
SIZE = 32


def example(family: str, num_classes: int = 5):
    return build_backbone(f"{family}/{BACKBONES.get(family).example}", num_classes, image_size=SIZE)


def example_images(backbone, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, backbone.data.channels, SIZE, SIZE, generator=generator)


def set_batch_statistics(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Give BatchNorm layers the statistics of ``images``, so that an untrained deep net does not fade to a constant."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    model.eval()


@pytest.mark.parametrize("family", BACKBONES.names())
class TestEveryFamily:
    """What every registered family must keep."""

    def test_logits_have_one_column_per_class(self, family):
        backbone = example(family)
        assert backbone.model(example_images(backbone)).shape == (2, 5)

    def test_eval_is_deterministic_and_independent_of_the_batch(self, family):
        backbone = example(family)
        images = example_images(backbone, 3)
        with torch.no_grad():
            together = backbone.model(images)
            apart = torch.cat([backbone.model(image[None]) for image in images])
        torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)

    def test_the_same_spec_and_seed_build_the_same_model(self, family):
        backbone = example(family)
        again = build_from_spec(backbone.spec)
        assert again.spec == backbone.spec
        for name, tensor in backbone.model.state_dict().items():
            assert torch.equal(tensor, again.model.state_dict()[name]), name

    def test_building_leaves_the_global_random_state_alone(self, family):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        example(family)
        assert torch.equal(before, torch.get_rng_state())

    def test_the_head_alone_makes_the_logits(self, family):
        backbone = example(family)
        for name in backbone.head:
            for parameter in backbone.model.get_submodule(name).parameters():
                torch.nn.init.zeros_(parameter)
        assert backbone.model(example_images(backbone)).abs().max() == 0

    @pytest.mark.parametrize("method", METHODS.names())
    def test_every_method_attaches_and_changes_the_answers_and_merges_to_the_same(self, family, method):
        backbone = example(family)
        images = example_images(backbone, 4)
        set_batch_statistics(backbone.model, images)
        with torch.no_grad():
            before = backbone.model(images)
            fields = {"r": 1} if "r" in METHODS.get(method).config_class.__dataclass_fields__ else {}
            peft = adapt(backbone, method, fields).peft.eval()
            torch.testing.assert_close(peft(images), before, atol=1e-5, rtol=1e-4)
            generator = torch.Generator().manual_seed(0)
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            adapted = peft(images)
            assert (adapted - before).abs().max() > 1e-4
            if not METHODS.get(method).mergeable:
                with pytest.raises(MergeError, match="must be a weight change"):
                    peft.merge_and_unload()
                return
            merged = peft.merge_and_unload()
            scale = adapted.abs().max().clamp(min=1)
            assert (merged(images) - adapted).abs().max() / scale < 1e-4

    def test_a_checkpoint_of_itself_loads_and_one_without_head_leaves_the_head(self, family, tmp_path):
        backbone = example(family)
        write_tensors(tmp_path / "all.safetensors", backbone.model.state_dict())
        heads = tuple(f"{name}." for name in backbone.head)
        bodiless = {k: v for k, v in backbone.model.state_dict().items() if not k.startswith(heads)}
        write_tensors(tmp_path / "body.safetensors", bodiless)
        name = backbone.spec.name
        full = build_backbone(name, 5, image_size=SIZE, checkpoint=tmp_path / "all.safetensors", seed=9)
        body = build_backbone(name, 7, image_size=SIZE, checkpoint=tmp_path / "body.safetensors", seed=9)
        assert full.new_parameters == ()
        assert body.new_parameters
        assert all(parameter.startswith(heads) for parameter in body.new_parameters)
        images = example_images(backbone)
        with torch.no_grad():
            assert torch.equal(full.model(images), backbone.model(images))


def closed_form_parameters(depth: int) -> int:
    """Parameters of a CIFAR ResNet of 6n + 2 layers with 10 classes, counted by hand."""
    blocks, total, channels = (depth - 2) // 6, 3 * 16 * 9 + 2 * 16, 16
    for width in (16, 32, 64):
        for _ in range(blocks):
            total += (channels + width) * width * 9 + 4 * width
            channels = width
    return total + 64 * 10 + 10


@pytest.mark.parametrize(("name", "published"), [("resnet20", 269_722), ("resnet56", 853_018)])
def test_cifar_resnets_have_the_published_number_of_parameters(name, published):
    count = sum(parameter.numel() for parameter in build_backbone(name, 10).model.parameters())
    assert count == published == closed_form_parameters(int(name.removeprefix("resnet")))


def test_option_a_shortcut_subsamples_and_pads_with_zeros():
    from vision.backbones.cifar_resnet import Block

    block = Block(16, 32, 2).eval()
    x = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        block.bn2.weight.zero_()
        out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().max() == 0
    assert out[:, 24:].abs().max() == 0


def test_bare_names_find_their_family_and_timm_comes_before_torchvision():
    assert find_family("resnet20")[0] == "cifar_resnet"
    assert find_family("vit_cifar10")[0] == "vision_transformer"
    assert find_family("resnet18")[0] == "timm"
    assert find_family("torchvision/resnet18")[0] == "torchvision"


def test_an_unknown_name_is_refused_with_the_closest_names():
    with pytest.raises(UnknownNameError, match=r"backbone: name must be one of .*resnet20.*got 'resnett20'.*resnet20"):
        build_backbone("resnett20", 10)


def test_a_member_another_family_has_is_refused():
    with pytest.raises(UnknownNameError, match="got 'cifar_resnet/resnet18'"):
        build_backbone("cifar_resnet/resnet18", 10)


def test_a_checkpoint_of_another_model_is_refused_with_names(tmp_path):
    write_tensors(tmp_path / "w.safetensors", build_backbone("small_conv", 5).model.state_dict())
    with pytest.raises(CheckpointError, match=r"CifarResNet, got \d+ missing: conv1.weight.*unexpected: .*stem"):
        build_backbone("resnet20", 10, checkpoint=tmp_path / "w.safetensors")


def test_a_deeper_model_of_the_same_family_is_refused(tmp_path):
    write_tensors(tmp_path / "w.safetensors", build_backbone("resnet32", 10).model.state_dict())
    with pytest.raises(CheckpointError, match=r"unexpected: layer1\.3"):
        build_backbone("resnet20", 10, checkpoint=tmp_path / "w.safetensors")


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="options must be among .*embed_dim.*got width"):
        build_backbone("vit_cifar10", 10, options={"width": 3})
    with pytest.raises(ConfigError, match="timm/test_vit: options must be the model's own"):
        build_backbone("timm/test_vit", 10, options={"no_such_option": 3})


def test_a_position_embedding_of_another_size_is_resampled(tmp_path):
    write_tensors(tmp_path / "w.safetensors", build_backbone("vit_cifar10", 10).model.state_dict())
    larger = build_backbone("vit_cifar10", 10, image_size=64, checkpoint=tmp_path / "w.safetensors")
    assert larger.model.pos_embed.shape == (1, 257, 64)


def test_a_new_head_starts_from_zero(tmp_path):
    write_tensors(tmp_path / "w.safetensors", build_backbone("resnet20", 10).model.state_dict())
    backbone = build_backbone("resnet20", 10, checkpoint=tmp_path / "w.safetensors", new_head=True)
    assert backbone.model.linear.weight.abs().max() == 0
    assert backbone.new_parameters == ("linear.weight", "linear.bias")
