"""Batched encoders against transformers' encoders, and against themselves piece by piece."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.models import encoding, windowed_vision, windows
from omnidrop.models.qwen2_5_omni import encoders as qwen2_5_towers
from omnidrop.models.qwen2_5_omni.encoders import AudioTower
from omnidrop.models.qwen2_5_omni.template import audio_token_count
from omnidrop.models.windowed_vision import VisionTower

GRIDS = [(2, 4, 4), (3, 14, 22), (1, 16, 16), (2, 10, 40), (1, 2, 2), (1, 2, 60), (4, 8, 8)]
SOUNDS = [1, 2, 3, 4, 5, 100, 199, 200, 201, 202, 203, 399, 400, 555, 1207]


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def towers(request, thinker_folder):
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=request.param
    )
    holder = model.model if hasattr(model.model, "language_model") else model
    return holder.visual, holder.audio_tower


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.dtype == b.dtype
    tolerance = 3e-5 if a.dtype == torch.float32 else 0.06
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_vision_equals_transformers(towers, grid):
    visual, _ = towers
    patches = torch.randn(torch.Size(grid).numel(), 1176)
    with torch.inference_mode():
        wanted = visual(patches.to(visual.dtype), grid_thw=torch.tensor([grid])).pooler_output
    out, received = VisionTower(visual)(patches, grid)
    assert received is None
    close(out, wanted)


@pytest.mark.parametrize("frames", SOUNDS)
def test_audio_equals_transformers(towers, frames):
    _, audio = towers
    mel = torch.randn(128, frames)
    with torch.inference_mode():
        wanted = audio(mel.to(audio.dtype), feature_lens=torch.tensor([frames])).last_hidden_state
    out, received = AudioTower(audio)(mel)
    assert received is None
    assert len(out) == audio_token_count(frames)
    close(out, wanted)


def test_vision_is_the_same_grid_by_grid(towers, monkeypatch):
    visual, _ = towers
    tower, grid = VisionTower(visual), (5, 10, 12)
    patches = torch.randn(600, 1176)
    whole, seen = tower(patches, grid, attention=True)
    parts = [tower(patches[i : i + 120], (1, 10, 12), attention=True) for i in range(0, 600, 120)]
    close(torch.cat([embeds for embeds, _ in parts]), whole)
    close(torch.cat([scores for _, scores in parts]), seen)
    monkeypatch.setattr(windowed_vision, "VISION_BATCH", 250)
    close(tower(patches, grid)[0], whole)
    monkeypatch.setattr(windowed_vision, "VISION_BATCH", 1)
    close(tower(patches, grid)[0], whole)


def test_audio_is_the_same_window_by_window(towers, monkeypatch):
    _, audio = towers
    tower, mel = AudioTower(audio), torch.randn(128, 1130)
    whole, weights = tower(mel, attention=True)
    parts = [tower(mel[:, i : i + 400], attention=True) for i in range(0, 1130, 400)]
    close(torch.cat([p[0] for p in parts]), whole)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), weights)
    monkeypatch.setattr(qwen2_5_towers, "AUDIO_BATCH", 2)
    close(tower(mel)[0], whole)


@pytest.mark.parametrize("inner", [64, 61])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_joined_products_change_nothing(thinker_folder, grid, inner):
    config = AutoConfig.from_pretrained(thinker_folder).vision_config
    config.intermediate_size = inner
    torch.manual_seed(0)
    visual = reference.Qwen2_5OmniVisionEncoder._from_config(config, attn_implementation="sdpa")
    patches = torch.randn(torch.Size(grid).numel(), 1176)
    count = sum(p.numel() for p in visual.parameters())
    wanted, scores = VisionTower(visual.eval())(patches, grid, attention=True)
    tower = VisionTower(visual, joined=True)
    assert all(products is not None for products in tower._products)
    assert tower._products[0].down.weight.shape[1] == 64
    out, received = tower(patches, grid, attention=True)
    close(out, wanted)
    close(received, scores)
    # The module of transformers still works, on the same memory.
    assert sum(p.numel() for p in visual.parameters()) == count
    with torch.inference_mode():
        own = visual(patches, grid_thw=torch.tensor([grid])).pooler_output
    close(own, wanted)


def test_windows_of_unequal_length_in_one_call(towers, monkeypatch):
    visual, _ = towers
    tower = VisionTower(visual)
    plan = tower._plan(10, 12, torch.device("cpu"))
    assert len(plan.groups) == 4
    attn = visual.blocks[0].attn
    heads = attn.num_heads
    states = tuple(torch.randn(3, 3, 120, heads, attn.dim // heads, dtype=visual.dtype))

    def one_by_one(query, key, value, starts, _, most, __):
        parts = []
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            assert last - first <= most
            inside = (x[first:last].transpose(0, 1) for x in (query, key, value))
            parts.append(torch.nn.functional.scaled_dot_product_attention(*inside).transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(windows, "varlen_attention", lambda: one_by_one)
    bounds = windows.window_bounds(plan.groups, 3)
    with torch.inference_mode():
        out = attn.proj(windows.attend_by_length(states, bounds, plan.groups))
        wanted, _ = tower._attention(attn, states, plan.groups, False)
    close(out, wanted)


def test_batches_fit_the_device(monkeypatch):
    device = torch.device("cuda")
    assert encoding.batch_size(torch.device("cpu"), 5, 9, 100) == 5
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 1000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 600)
    assert encoding.batch_size(device, 5, 9, 10) == 9
    assert encoding.batch_size(device, 5, 9, 100) == 6
    assert encoding.batch_size(device, 5, 9, 10**6) == 1


def test_windows_are_batched(towers, monkeypatch):
    visual, audio = towers
    calls = []
    attend = qwen2_5_towers.attend
    for towers_of in (windowed_vision, qwen2_5_towers):
        monkeypatch.setattr(
            towers_of,
            "attend",
            lambda m, q, *a, **k: calls.append(len(q)) or attend(m, q, *a, **k),
        )
    # 5 x 6 tokens: one window of 4 x 4, one of 4 x 2, one of 1 x 4, one of 1 x 2; and 4 frames.
    VisionTower(visual)(torch.randn(480, 1176), (4, 10, 12))
    assert calls == [4] * 4 + [4] + [4] * 4
    calls.clear()
    VisionTower(visual)(torch.randn(4 * 16 * 16, 1176), (4, 16, 16))
    assert calls == [16, 4, 16]
    calls.clear()
    AudioTower(audio)(torch.randn(128, 1130))
    assert calls == [5, 5, 5, 1, 1, 1]


@pytest.mark.parametrize("grid", [(2, 10, 12), (1, 16, 16)], ids=str)
def test_video_attention_equals_eager_weights(thinker_folder, monkeypatch, grid):
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=torch.float32, attn_implementation="eager"
    )
    visual = (model.model if hasattr(model.model, "language_model") else model).visual
    last, given, order = visual.blocks[-1].attn, [], []
    plan, eager = reference.get_vision_window_index, reference.eager_attention_forward

    def note(module, *args, **kwargs):
        out, weights = eager(module, *args, **kwargs)
        if module is last:
            given.append(weights[0].mean(0).sum(0))
        return out, weights

    def remember(*args, **kwargs):
        out = plan(*args, **kwargs)
        order.append(out[0])
        return out

    monkeypatch.setattr(reference, "eager_attention_forward", note)
    monkeypatch.setattr(reference, "get_vision_window_index", remember)
    patches = torch.randn(torch.Size(grid).numel(), 1176)
    with torch.inference_mode():
        visual(patches, grid_thw=torch.tensor([grid]))
    wanted = torch.cat(given).view(-1, 4).mean(1)[order[0].argsort()]
    _, received = VisionTower(visual)(patches, grid, attention=True)
    torch.testing.assert_close(received, wanted, rtol=1e-4, atol=1e-5)


def test_attention_received_equals_eager_weights(thinker_folder):
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=torch.float32, attn_implementation="eager"
    )
    holder = model.model if hasattr(model.model, "language_model") else model
    audio, mel = holder.audio_tower, torch.randn(128, 630)
    last, seen = audio.layers[-1].self_attn, []
    last.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.inference_mode():
        audio(mel, feature_lens=torch.tensor([630]))
        wanted = []
        for window in seen[0].split(100):
            q, k = (
                p(window).view(len(window), last.num_heads, -1).transpose(0, 1)
                for p in (last.q_proj, last.k_proj)
            )
            weights = (q @ k.transpose(1, 2) * last.scaling).softmax(-1)
            wanted.append(weights.mean(0).sum(0))
    pairs = torch.cat(wanted)[: 315 // 2 * 2].view(-1, 2).mean(1)
    _, received = AudioTower(audio)(mel, attention=True)
    assert received is not None
    torch.testing.assert_close(received, pairs, rtol=1e-4, atol=1e-5)
    # The attention of every query sums to one; pooling halves it.
    assert float(received[:50].sum()) == pytest.approx(50.0, rel=1e-4)


def test_half_precision_does_not_overflow(thinker_folder):
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=torch.float16
    )
    holder = model.model if hasattr(model.model, "language_model") else model
    with torch.no_grad():
        # One channel exceeds the limit after the first layer, and is reset before pairs are summed.
        holder.audio_tower.layers[0].fc2.bias[0] = 65500.0
        holder.audio_tower.layers[1].fc2.bias[0] = -50000.0
    mel = torch.randn(128, 300)
    with torch.inference_mode():
        wanted = holder.audio_tower(mel.half(), feature_lens=torch.tensor([300])).last_hidden_state
    out, _ = AudioTower(holder.audio_tower)(mel)
    assert out.isfinite().all()
    torch.testing.assert_close(out, wanted, rtol=0, atol=0.02)


def test_no_audio_gives_no_tokens(towers):
    _, audio = towers
    out, received = AudioTower(audio)(torch.empty(128, 0), attention=True)
    assert out.shape == (0, 64)
    assert received is not None
    assert received.shape == (0,)
    assert AudioTower(audio)(torch.empty(128, 0))[1] is None


def test_wrong_shapes_are_refused(towers):
    visual, audio = towers
    with pytest.raises(ValueError, match="fill"):
        VisionTower(visual)(torch.randn(10, 1176), (1, 4, 4))
    with pytest.raises(ValueError, match="mel"):
        AudioTower(audio)(torch.randn(80, 100))


def test_few_window_plans_are_cached(towers):
    tower = VisionTower(towers[0])
    for width in range(2, 16, 2):
        tower(torch.randn(2 * width, 1176), (1, 2, width))
    assert len(tower._plans) == windowed_vision.PLANS


def test_window_sizes_of_the_published_config(thinker_folder):
    config = AutoConfig.from_pretrained(thinker_folder)
    assert config.vision_config.window_size == 112
    assert config.audio_config.n_window == 100
