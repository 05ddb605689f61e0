"""video-SALMONN 2+'s encoders against transformers' modules with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnidrop.models.video_salmonn2 import encoders
from omnidrop.models.video_salmonn2.encoders import AudioEncoder, AudioTower, padded
from omnidrop.models.video_salmonn2.sizes import AudioConfig, audio_shape
from omnidrop.models.video_salmonn2.tiny import config as tiny_config
from omnidrop.models.video_salmonn2.tiny import models
from omnidrop.models.windowed_vision import VisionTower

#: Sizes of an audio encoder whose parts transformers has, too.
SMALL = AudioConfig(
    mel_bins=128,
    layers=2,
    hidden=32,
    heads=4,
    inner=64,
    positions=150,
    window=5,
    stride=5,
    q_layers=2,
    q_hidden=48,
    q_heads=4,
    q_inner=96,
    queries=2,
    output=64,
)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    module = AudioEncoder(SMALL).eval().requires_grad_(False)
    for name, weight in module.named_parameters():
        weight.normal_(std=0.3) if weight.ndim > 1 else weight.normal_("norm" in name.lower(), 0.1)
    return module


def whisper(module: AudioEncoder) -> WhisperEncoder:
    """Transformers' encoder with the same weights."""
    config = module.config
    other = WhisperEncoder(
        WhisperConfig(
            num_mel_bins=config.mel_bins,
            d_model=config.hidden,
            encoder_layers=config.layers,
            encoder_attention_heads=config.heads,
            encoder_ffn_dim=config.inner,
            max_source_positions=config.positions,
            activation_function="gelu",
        )
    )
    others = ("qformer.", "q_tokens", "audio_proj.")
    state = {k: v for k, v in module.state_dict().items() if not k.startswith(others)}
    other.load_state_dict(state)
    return other.eval()


def former(module: AudioEncoder) -> Blip2QFormerModel:
    """Transformers' Q-Former with the same weights."""
    config = module.config
    other = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=config.q_hidden,
            encoder_hidden_size=config.hidden,
            num_hidden_layers=config.q_layers,
            num_attention_heads=config.q_heads,
            intermediate_size=config.q_inner,
            cross_attention_frequency=1,
            layer_norm_eps=config.q_eps,
        )
    )
    state = {}
    for name, weight in module.qformer.bert.state_dict().items():
        renamed = name.replace("attention.self.", "attention.attention.")
        state[renamed.replace("embeddings.LayerNorm.", "layernorm.")] = weight
    other.load_state_dict(state)
    return other.eval()


@torch.inference_mode()
def reference_tokens(module: AudioEncoder, piece: torch.Tensor) -> torch.Tensor:
    """Embed one piece, window by window, with the modules of transformers."""
    config = module.config
    states = whisper(module)(piece[None]).last_hidden_state[0]
    other, found = former(module), []
    for first in range(0, config.positions - config.window + 1, config.stride):
        window = states[None, first : first + config.window]
        read = other(query_embeds=module.q_tokens, encoder_hidden_states=window)
        found.append(
            read.last_hidden_state[0] @ module.audio_proj.weight.T + module.audio_proj.bias
        )
    return torch.cat(found)


def test_states_equal_whispers(encoder: AudioEncoder) -> None:
    mel = torch.randn(2, 128, 300)
    wanted = whisper(encoder)(mel).last_hidden_state
    torch.testing.assert_close(encoder.states(mel)[0], wanted, rtol=0, atol=1e-4)


def test_tokens_are_the_windows_read_one_by_one(encoder: AudioEncoder) -> None:
    mel = torch.randn(128, 900)
    wanted = torch.cat([reference_tokens(encoder, piece) for piece in mel.split(300, dim=1)])
    out, received = AudioTower(encoder)(mel)
    assert received is None
    assert len(out) == 3 * SMALL.piece_tokens == 3 * 30 * 2
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(AudioTower(encoder)(mel[:, 300:])[0], wanted[60:], rtol=0, atol=1e-4)


def test_windows_may_overlap() -> None:
    torch.manual_seed(1)
    module = AudioEncoder(AudioConfig(**{**vars(SMALL), "window": 10})).eval()
    mel = torch.randn(128, 300)
    out, _ = AudioTower(module)(mel)
    assert len(out) == module.config.piece_tokens == 29 * 2
    torch.testing.assert_close(out, reference_tokens(module, mel), rtol=0, atol=1e-4)


def test_attention_received_is_that_of_whispers_last_layer(encoder: AudioEncoder) -> None:
    mel = torch.randn(128, 600)
    other = whisper(encoder)
    other.config._attn_implementation = "eager"
    last = other.layers[-1].self_attn
    given: list[torch.Tensor] = []
    last.register_forward_hook(lambda _, __, out: given.append(out[1]))
    other(torch.stack(mel.split(300, dim=1)), output_attentions=True)
    weights = given[0].mean(1).sum(1)  # (b, positions): mean over heads, sum over queries
    wanted = weights.unflatten(1, (30, 5)).mean(-1).flatten().repeat_interleave(2)
    _, received = AudioTower(encoder)(mel, attention=True)
    assert received is not None
    torch.testing.assert_close(received, wanted, rtol=1e-4, atol=1e-5)
    assert float(received.sum()) * 5 / 2 == pytest.approx(2 * 150, rel=1e-3)


def test_an_incomplete_piece_is_padded_with_silence() -> None:
    """The value of silence: 8 decades below the loudest point, or that of no power at all."""
    mel = torch.cat([torch.full((4, 300), 9.0), torch.full((4, 20), 1.25)], dim=1)
    out = padded(mel, 300)
    assert out.shape == (4, 600)
    assert torch.equal(out[:, :320], mel)
    assert bool((out[:, 320:] == 1.25 - 2).all())
    assert bool((padded(torch.full((4, 1), -1.4), 300)[:, 1:] == -1.5).all())
    assert padded(out, 300) is out


# The vision encoder: that of Qwen2.5-VL


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("grid", [(2, 4, 4), (2, 10, 14), (1, 16, 18)], ids=str)
def test_vision_equals_transformers(grid: tuple[int, int, int], joined: bool) -> None:
    thinker, _ = models(tiny_config(), seed=3)
    visual = thinker.model.visual
    patches = torch.randn(math.prod(grid), 1176)
    with torch.inference_mode():
        wanted = visual(patches, grid_thw=torch.tensor([grid])).pooler_output
    tower = VisionTower(visual, joined=joined)
    assert all((products is not None) == joined for products in tower._products)
    out, received = tower(patches, grid, attention=True)
    torch.testing.assert_close(out, wanted, rtol=0, atol=3e-5)
    assert received is not None
    assert float(received.sum()) == pytest.approx(math.prod(grid) / 4, rel=1e-4)


def test_audio_weights_and_operations_by_hand() -> None:
    module = AudioEncoder(SMALL)
    matrices = sum(p.numel() for n, p in module.named_parameters() if p.ndim > 1)
    shape = audio_shape(SMALL)
    assert shape.parameters == matrices - module.q_tokens.numel()
    single = AudioConfig(**{**vars(SMALL), "queries": 1})
    layers = 2 * 150 * 2 * 32 * (4 * 32 + 2 * 64) + 4 * 32 * 2 * 150 * 150
    convolutions = 2 * 3 * 32 * (300 * 128 + 150 * 32)
    keys_values = 2 * 2 * 2 * 150 * 32 * 48
    queries = 2 * 30 * (2 * 48 * (6 * 48 + 2 * 96) + 48 * 64)
    wanted = layers + convolutions + keys_values + queries
    assert audio_shape(single).flops(30) == wanted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_close_to_32(dtype: torch.dtype) -> None:
    _, exact = models(tiny_config(), seed=5)
    mel = 0.3 * torch.randn(128, 450)
    wanted, _ = AudioTower(exact)(mel)
    _, rounded = models(tiny_config(), seed=5)
    out, _ = AudioTower(rounded.to(dtype))(mel)
    assert out.dtype == dtype
    assert float((out.float() - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_change_nothing(
    encoder: AudioEncoder, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    mel = torch.randn(128, 1300)
    wanted, received = AudioTower(encoder)(mel, attention=True)
    monkeypatch.setattr(encoders, "BATCH", batch)
    out, again = AudioTower(encoder)(mel, attention=True)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(again, received)
    assert len(out) == 5 * SMALL.piece_tokens


def test_mel_of_another_shape_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match=r"mel is \(80, 300\), not \(128, F\)"):
        AudioTower(encoder)(torch.randn(80, 300))
    empty, received = AudioTower(encoder)(torch.empty(128, 0), attention=True)
    assert empty.shape == (0, SMALL.output)
    assert received is not None
    assert len(received) == 0
