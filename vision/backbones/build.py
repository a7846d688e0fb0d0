"""The one way to a backbone: find its family by name, build it, fill it from a checkpoint, renew its head."""

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_peft.errors import ConfigError, UnknownNameError
from vision.backbones.checkpoint import load_checkpoint
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, Family
from vision.correlations import correlate_heads

_SEARCH_LAST = ("timm", "torchvision")  # hundreds of names each: looked through only when no other family knows it


def build_backbone(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    in_chans: int | None = None,
    options: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    new_head: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build a classifier by name.

    Args:
        name: "family/member" such as "timm/convnext_atto", or a bare member name such as "resnet20".
        num_classes: outputs of the classifier.
        image_size: height and width of the input [px]; None is the member's own.
        in_chans: input channels; None is the member's own.
        options: further constructor arguments of the member.
        checkpoint: weight file, or the folder of a run; its head is skipped where its shape differs.
        pretrained: fetch the published weights (needs a network).
        new_head: start the head from zeros, whatever the checkpoint holds.
        seed: of the weights that no checkpoint fills; torch's global random state is left alone.

    Returns:
        The backbone, in eval mode.

    Raises:
        UnknownNameError: no family has that name; the message names the closest ones.
        CheckpointError: a file of another model, or one that cannot be read.
        ConfigError: options the member does not take, or both `checkpoint` and `pretrained`.
    """
    if checkpoint is not None and pretrained:
        fix = "Drop --pretrained to use the file"
        raise ConfigError("pretrained", "must be off where a checkpoint is given", "both", fix)
    spec = BackboneSpec(name, num_classes, image_size, in_chans, dict(options or {}))
    return build_from_spec(spec, checkpoint=checkpoint, pretrained=pretrained, new_head=new_head, seed=seed)


def build_from_spec(
    spec: BackboneSpec,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    new_head: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build a classifier from a spec; see `build_backbone`."""
    if spec.num_classes < 1:
        raise ConfigError(spec.name, "number of classes must be at least 1", spec.num_classes, "Check the data")
    family_name, family, member = find_family(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = family.build(dataclasses.replace(spec, name=member), pretrained)
    unfilled: tuple[str, ...] = ()
    if checkpoint is not None:
        unfilled = load_checkpoint(built.model, family, built.head, checkpoint)
    if new_head:
        zero_head(built.model, built.head)
        unfilled = tuple(k for k in built.model.state_dict() if k.startswith(tuple(f"{h}." for h in built.head)))
    if spec.label_correlation is not None:
        correlate_heads(built.model, built.head, spec.label_correlation, spec.num_classes)
    built.model.eval()
    full_spec = dataclasses.replace(spec, name=f"{family_name}/{member}")
    return dataclasses.replace(built, spec=full_spec, new_parameters=unfilled)


def zero_head(model: nn.Module, head: tuple[str, ...]) -> None:
    """Set the head's weights to zero, so that every class starts with the same logit."""
    with torch.no_grad():
        for name in head:
            for parameter in model.get_submodule(name).parameters():
                parameter.zero_()


def correlate(backbone: Backbone, name: str, labels: torch.Tensor) -> Backbone:
    """Put a label correlation behind the head, in place.

    Args:
        backbone: a classifier of several labels an image.
        name: from `vision.correlations.LABEL_CORRELATIONS`.
        labels: of the training images, 0 or 1, float32, shape (images, classes); it starts from them.

    Returns:
        The backbone, whose spec says so.

    Raises:
        UnknownNameError: no such label correlation.
        ConfigError: labels of one label an image.
    """
    if not labels.is_floating_point():
        fix = "Drop it, or give data with several labels an image"
        raise ConfigError("--label-correlation", "needs images with several labels", "one label an image", fix)
    for head in correlate_heads(backbone.model, backbone.head, name, backbone.spec.num_classes):
        head.correlation.start(labels)
    return dataclasses.replace(backbone, spec=dataclasses.replace(backbone.spec, label_correlation=name))


def find_family(name: str) -> tuple[str, Family, str]:
    """Return (family name, family, member) for "family/member" or a bare member name.

    Raises:
        UnknownNameError: nothing has that name; the message names the closest ones.
    """
    prefix, slash, member = name.partition("/")
    if slash and prefix in BACKBONES:
        family = BACKBONES.get(prefix)
        if _offers(family, member):
            return prefix, family, member
        raise _unknown(name, [f"{prefix}/{known}" for known in family.names()])
    for family_name, family in _in_search_order():
        if _offers(family, name):
            return family_name, family, name
    raise _unknown(name, [known for _, family in _in_search_order() for known in family.names()])


def _in_search_order() -> Iterator[tuple[str, Family]]:
    yield from (entry for entry in BACKBONES.items() if entry[0] not in _SEARCH_LAST)
    yield from ((name, BACKBONES.get(name)) for name in _SEARCH_LAST)


def _offers(family: Family, member: str) -> bool:
    return member.split(".", maxsplit=1)[0] in family.names() or member in family.names()


def _unknown(name: str, known: list[str]) -> UnknownNameError:
    own = [member for key, family in BACKBONES.items() if key not in _SEARCH_LAST for member in family.names()]
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    must = f"name must be one of {', '.join(own)}, or of a timm or torchvision classifier"
    fix = f"Did you mean {', '.join(close)}?" if close else "Correct the name"
    return UnknownNameError("backbone", must, repr(name), fix)
