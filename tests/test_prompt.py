"""Ids and positions against the reference's own functions, for every mix of media."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnidrop.errors import UsageError
from omnidrop.models.qwen2_5_omni.template import QwenOmniTemplate
from omnidrop.prompt import build_prompt, long_position_notice
from omnidrop.tokens import Kind, Media

TEMPLATE = QwenOmniTemplate(
    im_start=1,
    im_end=2,
    video=3,
    audio=4,
    vision_bos=5,
    vision_eos=6,
    audio_bos=7,
    audio_eos=8,
)
FIRST = 100


class Bytes:
    """One token per character."""

    def encode(self, text):
        return [FIRST + ord(c) for c in text], [(i, i + 1) for i in range(len(text))]


def reference_clip(
    media: Media, processor: Any = None, per_second: float = 25, array: Any = torch.tensor
) -> list[int]:
    """Markers and placeholders as a processor of the library writes them; Qwen2.5-Omni's here.

    Parameters
    ----------
    media : Media
    processor : type, optional
    per_second : float
        Positions a second.
    array : callable
        Makes what the processor takes as grids.
    """
    if processor is None:
        from transformers import Qwen2_5OmniProcessor as processor

    names = {"V": 3, "A": 4, "v": 5, "w": 6, "a": 7, "b": 8}
    if media.grid is None:
        return [names[c] for c in "a" + "A" * media.audio_tokens + "b"] if media else []
    video = int(np.prod(media.grid)) // 4
    if not media.audio_tokens:
        return [names[c] for c in "v" + "V" * video + "w"]
    stub = SimpleNamespace(
        audio_bos_token="a",
        audio_eos_token="b",
        audio_token="A",
        video_token="V",
        vision_bos_token="v",
        vision_eos_token="w",
        image_token="I",
        video_processor=SimpleNamespace(merge_size=2),
        image_processor=SimpleNamespace(merge_size=2),
    )
    if hasattr(processor, "get_chunked_index"):
        stub.get_chunked_index = lambda *a: processor.get_chunked_index(stub, *a)
    grids, seconds = array([media.grid]), [media.second_per_grid]
    if hasattr(processor, "replace_video_with_audio_token"):
        text = processor.replace_video_with_audio_token(
            stub,
            {"video_grid_thw": grids, "video_second_per_grid": seconds},
            0,
            {"num_audio_tokens": [media.audio_tokens]},
            0,
            position_id_per_seconds=per_second,
            seconds_per_chunk=2.0,
        )
        text = f"v{text}w"
    else:
        text = processor.replace_multimodal_special_tokens(
            stub,
            ["vVw"],
            iter([media.audio_tokens]),
            iter([]),
            iter(grids),
            iter(seconds),
            True,
            per_second,
            2.0,
        )[0]
    return [names[c] for c in text]


def reference_positions(ids: torch.Tensor, media: Media) -> torch.Tensor:
    """Positions as the library's model computes them."""
    from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as m

    base = m.Qwen2_5OmniPreTrainedModelForConditionalGeneration
    stub = SimpleNamespace(
        spatial_merge_size=2,
        config=SimpleNamespace(
            image_token_id=9,
            video_token_id=3,
            audio_token_id=4,
            vision_start_token_id=5,
            audio_start_token_id=7,
            position_id_per_seconds=25,
            seconds_per_chunk=2,
        ),
    )
    stub.get_llm_pos_ids_for_vision = lambda *a: base.get_llm_pos_ids_for_vision(stub, *a)
    stub.get_chunked_index = lambda *a: base.get_chunked_index(stub, *a)
    both = media.grid is not None and media.audio_tokens > 0
    # Mel frames that give as many audio tokens.
    mel = torch.tensor([4 * media.audio_tokens]) if media.audio_tokens else None
    grids = None if media.grid is None else torch.tensor([media.grid])
    seconds = None if media.grid is None else torch.tensor([media.second_per_grid])
    mask = torch.ones(1, len(ids), dtype=torch.long)
    out, delta = base.get_rope_index(stub, ids[None], None, grids, mask, both, mel, seconds)
    assert int(delta) + len(ids) == int(out.max()) + 1
    return out[:, 0]


grids = st.tuples(
    st.integers(1, 30),
    st.integers(1, 4).map(lambda n: 2 * n),
    st.integers(1, 30).map(lambda n: 2 * n),
)
seconds = st.one_of(
    st.sampled_from([1.0, 2 / 3, 2 / 30, 2 / 29.97, 2.0, 4.0, 2 / 0.3, 7.5, 0.04, 0.08, 1.96]),
    st.floats(0.01, 12.0),
    st.integers(1, 400).map(lambda n: 2 / (n / 7)),
)
media = st.builds(
    lambda g, s, a: Media(g, s, a), grids, seconds, st.one_of(st.just(0), st.integers(1, 800))
)


@settings(max_examples=150, deadline=None)
@given(media)
@example(Media(None, None, 0))
@example(Media(None, None, 77))
@example(Media((5, 4, 4), 6.0, 500))
@example(Media((1, 2, 60), 1.0, 1))
@example(Media((30, 2, 2), 0.04, 3))
def test_ids_and_positions_equal_the_reference(clip):
    prompt = build_prompt(Bytes(), TEMPLATE, "who?", clip)
    ids = prompt.ids.tolist()
    first = len("\0system\nYou are a helpful assistant.\0\n\0user\n")
    wanted = reference_clip(clip)
    assert ids[first : first + len(wanted)] == wanted
    assert len(ids) == first + len(wanted) + len("who?\0\n\0assistant\n")
    torch.testing.assert_close(
        prompt.positions, reference_positions(prompt.ids, clip), rtol=0, atol=0
    )


@settings(max_examples=60, deadline=None)
@given(media)
def test_token_map_counts_every_token_once(clip):
    prompt = build_prompt(Bytes(), TEMPLATE, "who?", clip)
    tokens = prompt.tokens
    assert len(tokens) == len(prompt)
    assert torch.equal(tokens.video, prompt.ids == TEMPLATE.video)
    assert torch.equal(tokens.audio, prompt.ids == TEMPLATE.audio)
    cells = tokens.grid[tokens.video].tolist()
    t, h, w = clip.grid
    assert cells == [[a, b, c] for a in range(t) for b in range(h // 2) for c in range(w // 2)]
    assert tokens.grid[tokens.audio][:, 0].tolist() == list(range(clip.audio_tokens))
    assert (tokens.chunk[tokens.av] >= 0).all()
    assert (tokens.chunk[~tokens.av] == -1).all()
    wanted = torch.arange(clip.audio_tokens) // 50
    assert torch.equal(tokens.chunk[tokens.audio].long(), wanted)
    assert int((tokens.kind == Kind.QUESTION).sum()) == 4


def test_question_tokens_are_the_users_words():
    for clip in (Media(), Media(None, None, 3), Media((1, 2, 2), 1.0, 0)):
        for question in ("hi", "assistant\n", "user\nhi", "\n?"):
            prompt = build_prompt(Bytes(), TEMPLATE, question, clip, system="user\nhi")
            asked = prompt.ids[prompt.tokens.question] - FIRST
            assert "".join(map(chr, asked.tolist())) == question


@pytest.mark.parametrize("question", ["", "  \n", "caf\udce9"])
def test_questions_that_are_none_are_refused(question):
    with pytest.raises(UsageError):
        build_prompt(Bytes(), TEMPLATE, question, Media())


def test_a_system_prompt_replaces_the_default():
    prompt = build_prompt(Bytes(), TEMPLATE, "?", Media(), system="")
    assert prompt.ids.tolist()[:10] == [1, *(FIRST + ord(c) for c in "system\n"), 2, FIRST + 10]
    with pytest.raises(UsageError):
        build_prompt(Bytes(), TEMPLATE, "?", Media(), system="\ud800")


def test_a_grid_needs_its_time_step():
    with pytest.raises(ValueError, match="grid"):
        Media((1, 2, 2), None, 0)


def test_long_positions_are_noticed():
    prompt = build_prompt(Bytes(), TEMPLATE, "?", Media(None, None, 100))
    assert long_position_notice(prompt, TEMPLATE) is None
    prompt = build_prompt(Bytes(), TEMPLATE, "?", Media(None, None, 40_000))
    said = long_position_notice(prompt, TEMPLATE) or ""
    assert f"position {int(prompt.positions.max())}, beyond the 32768" in said
    assert "(25 a second)" in said
    assert "--start" in said


def test_an_hour_takes_milliseconds():
    clip = Media((200, 28, 30), 1.0, 5000)
    build_prompt(Bytes(), TEMPLATE, "?", clip)
    took = []
    for _ in range(3):
        begin = time.process_time()
        prompt = build_prompt(Bytes(), TEMPLATE, "?", clip)
        took.append(time.process_time() - begin)
    assert len(prompt) > 43_000
    # The aim is 50 ms; a busy machine gets some room.
    assert min(took) < 0.15
    assert prompt.positions.shape == (3, len(prompt))
