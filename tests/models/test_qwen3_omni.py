"""Qwen3-Omni: ids and positions against the reference's functions, encoders, layouts, experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as reference
from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe as processing

from omnidrop.engine.model import Model
from omnidrop.errors import ModelError
from omnidrop.models.adapter import Thinking
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.qwen3_omni import encoders
from omnidrop.models.qwen3_omni.adapter import Qwen3OmniAdapter
from omnidrop.models.qwen3_omni.encoders import AudioTower, VisionTower
from omnidrop.models.qwen3_omni.template import (
    Qwen3OmniTemplate,
    audio_token_count,
    opens_with_a_thought,
)
from omnidrop.models.qwen3_omni.tiny import hub_layout, tiny_thinker, token_ids
from omnidrop.options import GenerateOptions
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.tokens import Media
from tests.test_prompt import Bytes
from tests.test_prompt import reference_clip as reference_markers
from tests.tiny import make_features

TEMPLATE = Qwen3OmniTemplate(
    im_start=1,
    im_end=2,
    video=3,
    audio=4,
    vision_start=5,
    vision_end=6,
    audio_start=7,
    audio_end=8,
)


def reference_clip(media: Media) -> list[int]:
    """Markers and placeholders as the library's processor writes them."""
    return reference_markers(media, processing.Qwen3OmniMoeProcessor, 13.0, np.array)


def frames_of(tokens: int) -> int:
    """Log-mel frames that give so many audio tokens."""
    frames = tokens // 13 * 100 + max(0, 8 * (tokens % 13) - 7)
    assert audio_token_count(frames) == tokens
    return frames


def reference_positions(ids: torch.Tensor, media: Media) -> tuple[torch.Tensor, float]:
    """Positions as the library's model computes them, and that of the first answer token."""
    base = reference.Qwen3OmniMoePreTrainedModelForConditionalGeneration
    stub = SimpleNamespace(
        spatial_merge_size=2,
        config=SimpleNamespace(
            image_token_id=9,
            video_token_id=3,
            audio_token_id=4,
            vision_start_token_id=5,
            audio_start_token_id=7,
            position_id_per_seconds=13,
            audio_config=SimpleNamespace(n_window=50),
        ),
    )
    stub.get_llm_pos_ids_for_vision = lambda *a: base.get_llm_pos_ids_for_vision(stub, *a)
    both = media.grid is not None and media.audio_tokens > 0
    mel = torch.tensor([frames_of(media.audio_tokens)]) if media.audio_tokens else None
    grids = None if media.grid is None else torch.tensor([media.grid])
    seconds = None if media.grid is None else torch.tensor([media.second_per_grid])
    mask = torch.ones(1, len(ids), dtype=torch.long)
    out, delta = base.get_rope_index(stub, ids[None], None, grids, mask, both, mel, seconds)
    return out[:, 0], float((torch.tensor([len(ids)]) + delta.flatten()).item())


grids = st.tuples(
    st.integers(1, 30),
    st.integers(1, 4).map(lambda n: 2 * n),
    st.integers(1, 30).map(lambda n: 2 * n),
)
seconds = st.one_of(
    st.sampled_from([1.0, 2 / 3, 2 / 30, 2 / 29.97, 2.0, 4.0, 2 / 0.3, 7.5, 0.04, 1 / 13, 3 / 13]),
    st.floats(0.01, 12.0),
    st.integers(1, 400).map(lambda n: 2 / (n / 7)),
)
media = st.builds(
    lambda g, s, a: Media(g, s, a), grids, seconds, st.one_of(st.just(0), st.integers(1, 400))
)


@settings(max_examples=150, deadline=None)
@given(media)
@example(Media(None, None, 0))
@example(Media(None, None, 77))
@example(Media((5, 4, 4), 6.0, 300))
@example(Media((1, 2, 60), 1.0, 1))
@example(Media((30, 2, 2), 0.04, 3))
@example(Media((26, 2, 4), 1 / 13, 26))
def test_ids_and_positions_equal_the_reference(clip):
    prompt = build_prompt(Bytes(), TEMPLATE, "who?", clip)
    ids = prompt.ids.tolist()
    first = len("\0user\n")  # no system turn
    wanted = reference_clip(clip)
    assert ids[first : first + len(wanted)] == wanted
    assert len(ids) == first + len(wanted) + len("who?\0\n\0assistant\n")
    positions, answer = reference_positions(prompt.ids, clip)
    assert prompt.positions.dtype == torch.float32
    torch.testing.assert_close(prompt.positions, positions, rtol=0, atol=0)
    assert prompt.next_position == answer


def test_audio_tokens_equal_the_reference():
    for frames in range(1, 1300):
        wanted = int(reference._get_feat_extract_output_lengths(torch.tensor(frames)))
        assert audio_token_count(frames) == wanted
    assert audio_token_count(0) == 0
    assert audio_token_count(100) == 13


def test_opening_markers_have_a_position_each_and_text_may_follow_at_a_fraction():
    clip = TEMPLATE.clip(Media((2, 2, 2), 0.7, 3), 10)
    assert clip.positions[0, :2].tolist() == [10, 11]
    assert clip.positions[0, 2] == 12
    # The second grid is at 9.1, after all audio; the closing markers follow it.
    assert clip.positions[0, -2:].tolist() == pytest.approx([22.1, 23.1])
    assert clip.end == pytest.approx(24.1)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def towers(request, tmp_path_factory):
    folder = tiny_thinker(tmp_path_factory.mktemp("towers"))
    kind = reference.Qwen3OmniMoeThinkerForConditionalGeneration
    model = kind.from_pretrained(folder, dtype=request.param)
    holder = model.model if hasattr(model.model, "language_model") else model
    return holder.visual, holder.audio_tower


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.dtype == b.dtype
    tolerance = 5e-5 if a.dtype == torch.float32 else 0.06
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("grid", [(2, 4, 4), (3, 14, 22), (1, 2, 2), (1, 2, 60)], ids=str)
def test_every_plane_equals_transformers(towers, grid):
    visual, _ = towers
    patches = torch.randn(torch.Size(grid).numel(), 3 * 2 * 16 * 16)
    with torch.inference_mode():
        wanted = visual(patches.to(visual.dtype), grid_thw=torch.tensor([grid]))
    found = VisionTower(visual)(patches, grid)
    assert found.received is None
    assert len(found.planes) == 4
    for plane, same in zip(
        found.planes, (wanted.pooler_output, *wanted.deepstack_features), strict=True
    ):
        close(plane, same)


def test_vision_is_the_same_grid_by_grid(towers, monkeypatch):
    visual, _ = towers
    tower, grid = VisionTower(visual), (5, 10, 12)
    patches = torch.randn(600, 1536)
    whole = tower(patches, grid, attention=True)
    parts = [tower(patches[i : i + 120], (1, 10, 12), attention=True) for i in range(0, 600, 120)]
    for plane in range(4):
        close(torch.cat([part.planes[plane] for part in parts]), whole.planes[plane])
    close(torch.cat([part.received for part in parts]), whole.received)
    # A frame has 120 patches, and each gives away attention of one.
    assert float(whole.received[:30].sum() * 4) == pytest.approx(120.0, rel=1e-2)
    monkeypatch.setattr(encoders, "VISION_BATCH", 250)
    close(tower(patches, grid).planes[3], whole.planes[3])


@pytest.mark.parametrize("frames", [1, 5, 9, 57, 99, 100, 101, 437, 799, 800, 801, 911, 2430])
def test_audio_equals_transformers(towers, frames):
    _, audio = towers
    mel = torch.randn(128, frames)
    with torch.inference_mode():
        wanted = audio(mel.to(audio.dtype), feature_lens=torch.tensor([frames])).last_hidden_state
    found = AudioTower(audio)(mel)
    assert len(found.planes[0]) == audio_token_count(frames)
    if frames < 9 and audio.dtype == torch.bfloat16:
        return  # PyTorch's product of one row of 32 in bfloat16 is sometimes not a number
    close(found.planes[0], wanted)


def test_audio_is_the_same_window_by_window(towers, monkeypatch):
    _, audio = towers
    tower, mel = AudioTower(audio), torch.randn(128, 4130)
    whole = tower(mel, attention=True)
    parts = [tower(mel[:, i : i + 1600], attention=True) for i in range(0, 4130, 1600)]
    close(torch.cat([part.planes[0] for part in parts]), whole.planes[0])
    close(torch.cat([part.received for part in parts]), whole.received)
    assert float(whole.received[:104].sum()) == pytest.approx(104.0, rel=1e-2)
    monkeypatch.setattr(encoders, "AUDIO_BATCH", 1)
    close(tower(mel).planes[0], whole.planes[0])


def test_no_audio_gives_no_tokens(towers):
    found = AudioTower(towers[1])(torch.empty(128, 0), attention=True)
    assert found.planes[0].shape == (0, 64)
    assert found.received.shape == (0,)
    with pytest.raises(ValueError, match="mel"):
        AudioTower(towers[1])(torch.randn(80, 100))
    with pytest.raises(ValueError, match="fill"):
        VisionTower(towers[0])(torch.randn(10, 1536), (1, 4, 4))


def loaded(folder: Path) -> Qwen3OmniAdapter:
    adapter = load_adapter(LoadOptions(model=str(folder), device="cpu", dtype="float32"))
    assert isinstance(adapter, Qwen3OmniAdapter)
    return adapter


@pytest.mark.parametrize("kind", ["instruct", "thinking", "captioner"])
def test_every_published_layout_loads(tmp_path, kind):
    adapter = loaded(hub_layout(tmp_path, kind=kind))
    ids = token_ids()
    assert adapter.info.parameters == sum(p.numel() for p in adapter._thinker.parameters())
    assert adapter.thinking == Thinking(ids["<think>"], ids["</think>"], kind == "thinking")
    prompt = build_prompt(adapter.text, adapter.template, "Who?", Media(None, None, 3))
    opened = ids["<think>"] in prompt.ids.tolist()
    assert opened == (kind == "thinking")
    end = "assistant\n" + ("<think>\n" if opened else "")
    assert adapter.text.decode(prompt.ids.tolist()).endswith(end)


@pytest.mark.parametrize(
    ("chat", "opened"),
    [
        ("{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}", True),
        ("<think>{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}", False),
        ("{% if add_generation_prompt %}{{ 'assistant\\n<think>\\n\\n</think>' }}", False),
    ],
)
def test_the_chat_template_says_whether_an_answer_begins_inside_a_thought(tmp_path, chat, opened):
    assert not opens_with_a_thought(tmp_path)
    assert not opens_with_a_thought(None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat}))
    assert opens_with_a_thought(tmp_path) == opened
    (tmp_path / "chat_template.jinja").write_text(chat)
    assert opens_with_a_thought(tmp_path) == opened
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(ModelError, match=r"chat_template\.json"):
        opens_with_a_thought(tmp_path)


def test_an_answer_that_never_began_is_noticed(tmp_path):
    model = Model(loaded(tiny_thinker(tmp_path, kind="thinking")))
    with model.features(make_features(model=model)) as clip:
        told: list[str] = []
        answer = clip.ask(
            "Who?", options=GenerateOptions(max_new_tokens=5), on_text=told.append, method=Method()
        )
        assert (answer.text, told) == ("", [])
        assert answer.thinking == model.adapter.text.decode(answer.token_ids).strip() != ""
        assert "still thinking" in answer.trace.notices[-1]
        first = clip.ask("Who?", choices=["piano", "drum"], method=Method())
        again = clip.ask("Who?", choices=["piano", "drum"], method=Method(), reuse=False)
        assert first.choices == again.choices


def test_choices_of_a_thinking_model_follow_an_empty_thought(tmp_path):
    thinking = Model(loaded(tiny_thinker(tmp_path / "t", kind="thinking")))
    plain = Model(loaded(tiny_thinker(tmp_path / "p")))
    pause = plain.adapter.text.encode("\n\n")[0]
    ids = token_ids()
    opening = (ids["<think>"], "\n", *pause, ids["</think>"], *pause)
    template = replace(plain.adapter.template, opening=opening)
    plain.adapter.template = template
    with thinking.features(make_features(model=thinking)) as clip:
        found = clip.ask("Who?", choices=["piano", "drum"], method=Method(), reuse=False)
    with plain.features(make_features(model=plain)) as clip:
        wanted = clip.ask("Who?", choices=["piano", "drum"], method=Method(), reuse=False)
    assert [c.text for c in found.choices] == [c.text for c in wanted.choices]
    for one, other in zip(found.choices, wanted.choices, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
