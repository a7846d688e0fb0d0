"""Recurrent layers against a copy whose weights are replaced, whatever their direction, depth, projection or input."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from shared_peft import LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from shared_peft.errors import RankError, TargetError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, fill_randomly

X = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "rnn": lambda: nn.RNN(5, 4, nonlinearity="relu", bias=False),
    "gru": lambda: nn.GRU(5, 4, batch_first=True),
    "gru two ways, two layers": lambda: nn.GRU(5, 4, num_layers=2, bidirectional=True, batch_first=True),
    "lstm": lambda: nn.LSTM(5, 4, num_layers=2),
    "lstm projected two ways": lambda: nn.LSTM(5, 4, num_layers=2, proj_size=2, bidirectional=True),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


def layer_of(name: str) -> nn.RNNBase:
    torch.manual_seed(0)
    return LAYERS[name]()


def adapted(name: str) -> PeftModel:
    model = get_peft_model(nn.ModuleDict({"rnn": layer_of(name)}), LoraConfig(r=2, lora_alpha=3))
    fill_randomly(model)
    return model


def replaced(name: str, model: PeftModel) -> nn.RNNBase:
    """A layer that torch knows nothing special about, its parameters set to W + dW."""
    plain = layer_of(name)
    ((_, layer),) = adapter_layers(model)
    with torch.no_grad():
        for slot in layer.slots:
            plain.get_parameter(slot.parameter).add_(layer.delta_weight("default", slot))
    return plain


def flat(answer: tuple[Tensor | PackedSequence, Tensor | tuple[Tensor, Tensor]]) -> Tensor:
    """All of an answer's numbers: outputs, then the last hidden (and cell) state."""
    output, state = answer
    output = output.data if isinstance(output, PackedSequence) else output
    return torch.cat([t.flatten() for t in (output, *(state if isinstance(state, tuple) else (state,)))])


@every_layer
def test_every_weight_matrix_is_a_slot_without_dots_and_no_bias_is(name: str) -> None:
    model = adapted(name)
    ((_, layer),) = adapter_layers(model)
    matrices = {n for n, p in layer_of(name).named_parameters() if p.dim() == 2}
    assert {slot.key for slot in layer.slots} == matrices
    trained = {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == matrices


@every_layer
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_it_answers_like_the_layer_with_its_weights_replaced(name: str, mode: bool) -> None:
    model = adapted(name).train(mode)
    expected = flat(replaced(name, model).train(mode)(X))
    assert not close(expected, flat(layer_of(name)(X)), 1e-2)
    assert close(flat(model.rnn(X)), expected)
    with torch.no_grad():
        assert close(flat(model.rnn(X)), expected)
    with model.disable_adapter():
        assert torch.equal(flat(model.rnn(X)), flat(layer_of(name).requires_grad_(False)(X)))
    assert close(flat(copy.deepcopy(model).rnn(X)), expected)
    assert close(flat(pickle.loads(pickle.dumps(model)).rnn(X)), expected)
    assert close(flat(model.merge_and_unload()["rnn"](X)), expected)


@every_layer
def test_packed_sequences_and_first_states_pass_through(name: str) -> None:
    model = adapted(name)
    plain = replaced(name, model)
    packed = pack_padded_sequence(X, torch.tensor([6, 2, 4]), batch_first=True, enforce_sorted=False)
    assert close(flat(model.rnn(packed)), flat(plain(packed)))
    first = torch.randn_like(plain(packed)[1]) if isinstance(plain(packed)[1], Tensor) else plain(packed)[1]
    assert close(flat(model.rnn(packed, first)), flat(plain(packed, first)))
    assert close(flat(model.rnn(input=packed, hx=first)), flat(plain(packed, first)))


@every_layer
def test_gradients_are_those_of_the_replaced_weights(name: str) -> None:
    model = adapted(name).train()
    plain = replaced(name, model)
    flat(model.rnn(X)).square().sum().backward()
    flat(plain(X)).square().sum().backward()
    ((_, layer),) = adapter_layers(model)
    for slot, method in layer.methods("default"):
        weight_grad = plain.get_parameter(slot.parameter).grad
        assert torch.allclose(method.lora_B.grad, method.scale * weight_grad @ method.lora_A.T, atol=1e-4)
        assert torch.allclose(method.lora_A.grad, method.scale * method.lora_B.T @ weight_grad, atol=1e-4)
    assert all(p.grad is None for p in layer.base_layer.parameters())


@every_layer
def test_the_layer_is_itself_again_after_a_call_and_after_a_failure(name: str) -> None:
    model = adapted(name)
    base = model.rnn.base_layer
    before = list(base._flat_weights)
    expected = flat(layer_of(name).requires_grad_(False)(X))  # torch's kernel rounds otherwise where it trains
    model.rnn(X)
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        model.rnn(X[..., :3])
    assert all(p is q for p, q in zip(base._flat_weights, before, strict=True))
    assert all(p is q for p, q in zip(base._flat_weights, base.parameters(), strict=True))
    assert torch.equal(flat(base(X)), expected)


def test_weights_moved_or_assigned_after_attaching_are_the_ones_used() -> None:
    model = adapted("gru").double()
    assert close(flat(model.rnn(X.double())).float(), flat(adapted("gru").rnn(X)))
    other = adapted("gru")
    other.rnn.base_layer.load_state_dict({k: 2 * v for k, v in layer_of("gru").state_dict().items()}, assign=True)
    doubled = layer_of("gru")
    ((_, layer),) = adapter_layers(other)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
        for slot in layer.slots:
            doubled.get_parameter(slot.parameter).add_(layer.delta_weight("default", slot))
    assert close(flat(other.rnn(X)), flat(doubled(X)))


def test_flattening_the_parameters_changes_nothing() -> None:
    model = adapted("gru")
    expected = flat(model.rnn(X))
    model.rnn.flatten_parameters()
    assert torch.equal(flat(model.rnn(X)), expected)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_are_adapted_too(cell: type[nn.RNNCellBase]) -> None:
    torch.manual_seed(0)
    plain = cell(5, 4)
    model = get_peft_model(nn.Sequential(copy.deepcopy(plain)), LoraConfig(r=2))
    fill_randomly(model)
    ((_, layer),) = adapter_layers(model)
    base = plain(X[0])
    with torch.no_grad():
        for slot in layer.slots:
            plain.get_parameter(slot.parameter).add_(layer.delta_weight("default", slot))
    first = (lambda answer: answer[0]) if cell is nn.LSTMCell else (lambda answer: answer)
    assert not close(first(plain(X[0])), first(base), 1e-2)
    assert close(first(model(X[0])), first(plain(X[0])))


def test_a_step_trains_the_adapter_alone_and_its_file_brings_the_answer_back(tmp_path: Path) -> None:
    model = get_peft_model(nn.ModuleDict({"rnn": layer_of("lstm")}), LoraTsdConfig(r=2, n_directions=2, warmup_steps=1))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(1, 20):
        loss = (model.train().rnn(X)[0] - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        model.update_and_allocate(step, optimizer)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(p, layer_of("lstm").get_parameter(n)) for n, p in model.rnn.base_layer.named_parameters())
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(nn.ModuleDict({"rnn": layer_of("lstm")}), tmp_path)
    assert torch.equal(flat(loaded.rnn(X)), flat(model.eval().rnn(X)))


def test_ranks_are_checked_for_each_weight_and_dropout_is_refused() -> None:
    with pytest.raises(RankError, match=r"rnn\.weight_hh_l0: rank must be in \[1, 4\], got 5"):
        get_peft_model(nn.ModuleDict({"rnn": layer_of("gru")}), LoraConfig(r=5))
    with pytest.raises(TargetError, match=r"rnn: dropout needs a layer whose output is linear.*got 0.1 on GRU"):
        get_peft_model(nn.ModuleDict({"rnn": layer_of("gru")}), LoraConfig(r=2, lora_dropout=0.1))
