"""Two networks are the same only where nothing but the values of their weights differs."""

import copy

import pytest
import torch
from torch import nn

from deploy.program import merged_copy
from deploy.structure import same_structure
from shared_peft import METHODS
from tests.deploy.conftest import adapted_toy
from tests.deploy.toys import ConvNet, SequenceNet


class _Renamed(ConvNet):
    """The same code in another class."""


def _changed(change) -> nn.Module:
    net = ConvNet()
    change(net)
    return net


CHANGES = {
    "an attribute": lambda net: setattr(net.depthwise, "padding", (0, 0)),
    "an attribute more": lambda net: setattr(net, "scale", 2.0),
    "a list of tensors": lambda net: setattr(net, "kept", [torch.zeros(2)]),
    "a hook": lambda net: net.head.register_forward_hook(lambda module, inputs, output: output + 1),
    "a shape": lambda net: setattr(net.head, "weight", nn.Parameter(torch.zeros(5, 9))),
    "a type": lambda net: net.norm.double(),
    "a buffer more": lambda net: net.register_buffer("table", torch.zeros(3)),
    "a module more": lambda net: setattr(net, "last", nn.Identity()),
    "a module of another class": lambda net: setattr(net.stem, "2", nn.GELU()),
    "no bias": lambda net: setattr(net.head, "bias", None),
    "another forward": lambda net: setattr(net, "forward", lambda image: image),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_other_difference_is_seen(name):
    one, other = ConvNet(), _changed(CHANGES[name])
    assert not same_structure(one, other)
    assert not same_structure(other, one)


def test_other_weights_make_no_difference_and_another_class_does():
    assert same_structure(ConvNet(), ConvNet())
    assert not same_structure(ConvNet(), _Renamed())


@pytest.mark.parametrize("method", [name for name in METHODS.names() if METHODS.get(name).mergeable])
def test_merged_model_is_its_base(method):
    trained = adapted_toy("conv", method)
    assert same_structure(merged_copy(trained.model), ConvNet())
    assert not same_structure(trained.model, ConvNet())


def test_attention_and_its_copy_are_the_same_and_one_with_dropout_is_not():
    net = SequenceNet()
    other = copy.deepcopy(net)
    assert same_structure(net, other)
    other.attention.dropout = 0.5
    assert not same_structure(net, other)
