"""Every encoder, unasked: shapes, scaling, adapters, export; then limu against LIMU-BERT written out plainly."""

import dataclasses
import math
import warnings

import pytest
import torch
from torch.nn import functional

import imu_saga.encoders  # noqa: F401
from imu_saga.encoder import ENCODERS, STANDARD_GRAVITY, build_encoder
from imu_saga.encoders.saga import position_features
from imu_saga.finetune import FinetuneConfig, attach_method
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.recording import ACC_CHANNELS, IMU_CHANNELS
from shared_peft import METHODS
from shared_peft.errors import ConfigError, DataError, MergeError, UnknownNameError
from shared_peft.layer_kind import kind_of
from shared_peft.weights import load_checked, read_tensors

SPEC = InputSpec(IMU_CHANNELS, 20.0, 120)
QUICK = {"gru": {"patch": 40}}  # 3 tokens: torch.export writes every step of a recurrence out
PUBLISHED = ("hhar", "motion", "shoaib", "uci")


def windows(count: int = 3, spec: InputSpec = SPEC) -> torch.Tensor:
    x = torch.randn(count, spec.samples, len(spec.channels), generator=torch.Generator().manual_seed(0))
    x[..., 2] += STANDARD_GRAVITY
    return x


def fresh(name: str) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_encoder(name, SPEC), 5).eval()


@pytest.mark.parametrize("name", ENCODERS.names())
def test_battery_shapes_and_determinism(name):
    model, x = fresh(name), windows()
    tokens = model.encoder(x)
    assert tokens.ndim == 3
    assert (tokens.shape[0], tokens.shape[2]) == (3, model.encoder.width)
    assert model.encoder.make_decoder()(tokens).shape == (3, 120, len(model.encoder.slots))
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))
    assert not any("placement" in key or "columns" in key or "positions" in key for key in model.state_dict())


@pytest.mark.parametrize("name", ENCODERS.names())
def test_battery_scaling_is_inside(name):
    encoder, x = build_encoder(name, SPEC), windows()
    gravity = type(encoder).gravity
    expected = torch.cat([x[..., :3] / gravity, x[..., 3:]], dim=2)
    torch.testing.assert_close(encoder.scaled(x), expected)
    assert gravity == pytest.approx(9.80665, rel=1e-3)


@pytest.mark.filterwarnings("ignore:.* runs beside dense layers only:UserWarning")
@pytest.mark.parametrize("name", ENCODERS.names())
@pytest.mark.parametrize("method", METHODS.names())
def test_battery_every_method_attaches_starts_equal_and_merges(name, method):
    plain, x = fresh(name), windows()
    adapted = attach_method(fresh(name), FinetuneConfig(method=method, r=2))
    kinds = {
        n: (kind_of(module), module) for n, module in plain.named_modules() if n not in ("head", "encoder.position")
    }
    runnable = {n for n, (kind, m) in kinds.items() if kind and (METHODS.get(method).mergeable or kind.runs_chain(m))}
    assert {status.name for status in adapted.get_layer_status()} == runnable != set()
    torch.testing.assert_close(adapted.eval()(x), plain(x), rtol=1e-5, atol=1e-5)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
    changed = adapted(x)
    assert float((changed - plain(x)).detach().abs().max()) > 1e-3
    if METHODS.get(method).mergeable:
        torch.testing.assert_close(adapted.merge_and_unload()(x), changed, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(MergeError, match="must be a weight change"):
            adapted.merge_and_unload()


@pytest.mark.parametrize("name", ENCODERS.names())
def test_battery_exports_with_a_dynamic_batch(name):
    torch.manual_seed(0)
    model = Classifier(build_encoder(name, SPEC, QUICK.get(name)), 5).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (windows(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for count in (1, 7):
        torch.testing.assert_close(program.module()(windows(count)), model(windows(count)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_battery_refuses_other_windows(name):
    encoder = build_encoder(name, SPEC)
    with pytest.raises(DataError, match="120 samples, 6 channels.*Resample to 20 Hz and cut windows of 6 s"):
        encoder(torch.zeros(1, 100, 6))
    with pytest.raises(DataError, match="channels"):
        build_encoder(name, dataclasses.replace(SPEC, channels=()))
    with pytest.raises(ConfigError, match="'widht'"):
        build_encoder(name, SPEC, {"widht": 3})


def test_unknown_encoder_lists_the_names():
    with pytest.raises(UnknownNameError, match=f"name must be one of {', '.join(ENCODERS.names())}, got 'lstm'"):
        build_encoder("lstm", SPEC)


@pytest.mark.parametrize(
    ("rate_hz", "samples", "tokens"), [(20.0, 120, 30), (100.0, 100, 25), (20.0, 75, 19), (50.0, 601, 31)]
)
def test_resnet1d_reads_any_rate_and_length(rate_hz, samples, tokens):
    spec = InputSpec(ACC_CHANNELS, rate_hz, samples)
    encoder = build_encoder("resnet1d", spec)
    found = encoder(windows(2, spec))
    assert found.shape == (2, tokens, 96)
    assert encoder.make_decoder()(found).shape == (2, samples, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"widths": [12]}, "multiples of 8"), ({"kernel": 4}, "kernel must be odd"), ({"patch": 6}, "multiple of 4")],
)
def test_resnet1d_refuses_sizes_it_cannot_have(options, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder("resnet1d", SPEC, options)


@pytest.mark.parametrize(("rate_hz", "samples", "tokens"), [(20.0, 120, 30), (100.0, 100, 34), (50.0, 601, 31)])
def test_gru_reads_any_rate_and_length(rate_hz, samples, tokens):
    spec = InputSpec(ACC_CHANNELS, rate_hz, samples)
    encoder = build_encoder("gru", spec)
    found = encoder(windows(2, spec))
    assert found.shape == (2, tokens, 96)
    assert encoder.make_decoder()(found).shape == (2, samples, 3)


def test_half_of_a_gru_token_has_seen_what_came_before_it_and_the_other_half_what_comes_after():
    encoder = build_encoder("gru", SPEC, {"depth": 1}).eval()
    x, changed = windows(1), windows(1)
    changed[:, 60:68] += 1.0  # tokens 14 to 17 read these samples
    moved = (encoder(changed) - encoder(x)).detach().abs()[0]
    assert float(moved[:14, :48].max()) == 0 < float(moved[14:, :48].min(1).values.max())
    assert float(moved[18:, 48:].max()) == 0 < float(moved[:18, 48:].max(1).values.min())


@pytest.mark.parametrize(
    ("options", "message"), [({"width": 9}, "width must be even"), ({"patch": -1}, "patch must be positive")]
)
def test_gru_refuses_sizes_it_cannot_have(options, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder("gru", SPEC, options)


@pytest.mark.parametrize(
    ("rate_hz", "samples", "tokens"), [(20.0, 120, 30), (100.0, 100, 25), (50.0, 128, 32), (100.0, 600, 30)]
)
def test_saga_reads_any_rate_and_length(rate_hz, samples, tokens):
    spec = InputSpec(ACC_CHANNELS, rate_hz, samples)
    encoder = build_encoder("saga", spec)
    found = encoder(windows(2, spec))
    assert found.shape == (2, tokens, 96)
    assert encoder.make_decoder()(found).shape == (2, samples, 3)


def test_saga_positions_are_times_in_seconds():
    one, other = (
        build_encoder("saga", InputSpec(IMU_CHANNELS, rate, 120), {"patch": p}) for rate, p in ((20.0, 4), (40.0, 8))
    )
    shared = min(one.positions.shape[0], other.positions.shape[0])
    torch.testing.assert_close(one.positions[:shared], other.positions[:shared])
    at = position_features(torch.tensor([0.0, 0.05]), 4)
    torch.testing.assert_close(at[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert float(at[1, 0]) == pytest.approx(math.sin(2 * math.pi * 0.05 / 0.2))


def test_saga_reads_fewer_channels_as_if_the_others_were_zero():
    torch.manual_seed(0)
    full = build_encoder("saga", SPEC).eval()
    some = build_encoder(
        "saga", InputSpec(("gyro_y", "acc_x"), 20.0, 120), {"slots": list(IMU_CHANNELS), "patch": 4}
    ).eval()
    some.load_state_dict(full.state_dict())
    x = windows(2)
    silent = torch.zeros_like(x)
    silent[..., 0], silent[..., 4] = x[..., 0], x[..., 4]
    torch.testing.assert_close(some(torch.stack([x[..., 4], x[..., 0]], dim=2)), full(silent))


def test_saga_refuses_sizes_that_do_not_divide():
    with pytest.raises(ConfigError, match=r"width must be a multiple of 2 \* heads, got width 90"):
        build_encoder("saga", SPEC, {"width": 90})
    with pytest.raises(ConfigError, match="patch must be even, got 3"):
        build_encoder("saga", SPEC, {"patch": 3})


def plain_limu(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """LIMU-BERT's forward pass, written from its description with the published names and no fused operation."""

    def norm(h, name):
        centred = h - h.mean(-1, keepdim=True)
        return w[f"{name}.gamma"] * centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() + w[f"{name}.beta"]

    def linear(h, name):
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(h):
        return h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))

    t = "transformer."
    h = norm(norm(linear(x, t + "embed.lin"), t + "embed.norm") + w[t + "embed.pos_embed.weight"], t + "embed.norm")
    for _ in range(4):
        heads = []
        for head in range(4):
            cut = slice(18 * head, 18 * head + 18)
            q, k, v = (linear(h, f"{t}attn.proj_{letter}")[..., cut] for letter in "qkv")
            heads.append(functional.softmax(q @ k.transpose(1, 2) / math.sqrt(18), dim=-1) @ v)
        h = torch.cat(heads, dim=-1)
        h = norm(h + linear(h, t + "proj"), t + "norm1")
        h = norm(h + linear(gelu(linear(h, t + "pwff.fc1")), t + "pwff.fc2"), t + "norm2")
    return linear(norm(gelu(linear(h, "linear")), "norm"), "decoder")


@pytest.mark.parametrize("data", PUBLISHED)
def test_published_limu_weights_answer_as_the_plain_network(shared_root, data):
    path = shared_root / "weights" / "limu_bert" / f"pretrain_base_{data}_20_120.pt"
    tensors = read_tensors(path)
    encoder = build_encoder("limu", SPEC)
    model = torch.nn.ModuleDict({"encoder": encoder, "decoder": encoder.make_decoder()})
    assert sum(parameter.numel() for parameter in model.parameters()) == 62_646
    load_checked(model, type(encoder).convert(tensors), path)
    x = windows(4)
    with torch.no_grad():
        found = model["decoder"](model["encoder"](x))
    scaled = torch.cat([x[..., :3] / 9.8, x[..., 3:]], dim=2)
    torch.testing.assert_close(found, plain_limu(tensors, scaled), rtol=1e-4, atol=1e-4)


def test_limu_refuses_windows_its_weights_were_not_made_for():
    with pytest.raises(DataError, match="120 samples of 6 channels at 20 Hz, got 100 of 6 at 100 Hz"):
        build_encoder("limu", InputSpec(IMU_CHANNELS, 100.0, 100))
