"""The recipe's batched forward passes equal transformers', and a few steps lower the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from avsynth.world import WorldOptions, draw_clip
from recipe.batches import SYSTEM, Asker, Collator, make_sample
from recipe.labels import Speaker, video_labels
from recipe.language import LanguageOptions, grow, teach_words, train_language
from recipe.layout import audio_tokens
from recipe.precision import working_dtype
from recipe.shape import WIDTH, build_model, parts
from recipe.towers import hear, see
from recipe.trunk import Trunk
from recipe.vocab import build_tokenizer, concept_vectors

from omnidrop.clip.log_mel import log_mel
from omnidrop.clip.patches import patches

TOK = build_tokenizer()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(TOK).eval()


def test_batched_towers_equal_transformers(model) -> None:
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for h, w in ((112, 112), (112, 140), (168, 84)):
            frames = rng.integers(0, 256, (4, h, w, 3), dtype=np.uint8)
            p, grid = patches(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
            wanted = parts(model).vision(p, torch.tensor([grid])).pooler_output
            torch.testing.assert_close(see(parts(model).vision, frames), wanted)
        sound = rng.normal(0, 0.1, 16_000 * 3 + 777).astype(np.float32)
        mel = log_mel(sound)
        tower = parts(model).audio
        wanted = tower(mel, torch.tensor([mel.shape[1]])).last_hidden_state
        torch.testing.assert_close(hear(tower, sound), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "modes", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["both", "silent", "sound"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_question_gives_the_logits_of_a_single_one(
    model, modes, dtype, monkeypatch
) -> None:
    monkeypatch.setattr("recipe.trunk.working_dtype", lambda device: dtype)
    rng = np.random.default_rng(0)
    speaker = Speaker(concept_vectors(WIDTH))
    trunk = Trunk(parts(model).text, model.lm_head).eval()
    collate, asker = Collator(TOK), Asker(rng)
    samples = [make_sample(draw_clip(s, WorldOptions(modes=modes)), speaker, rng) for s in (1, 2)]
    asked = [asker.draw(s.clip, 3) for s in samples]
    batch = collate(samples, asked, [SYSTEM, ""])
    sample, question = samples[1], asked[1][1]
    clip, audio, n = sample.clip, sample.layout.is_audio, len(sample.owner)
    head, _ = collate.head("", clip)
    video = video_labels(clip) if clip.shapes is not None else None
    marks = [TOK.token_to_id("<|AUDIO|>" if a else "<|VIDEO|>") for a in audio]
    ends = ["<|audio_eos|>"] * (clip.sounds is not None) + ["<|vision_eos|>"] * (video is not None)
    tail = collate.encode(question.text) + collate.encode("<|im_end|>\n<|im_start|>assistant\n")
    ids = torch.tensor([[*head, *marks, *(TOK.token_to_id(e) for e in ends), *tail]])
    frames = -(-round(clip.duration * 16_000) // 160)
    assert audio.sum() == (audio_tokens(round(clip.duration * 16_000)) if audio.any() else 0)
    index = getattr(model, "get_rope_index", None) or model.model.get_rope_index
    places, _ = index(
        ids,
        None,
        torch.tensor([[video["grids"], video["rows"] * 2, video["cols"] * 2]]) if video else None,
        torch.ones_like(ids),
        use_audio_in_video=bool(audio.any() and video),
        audio_seqlens=torch.tensor([frames]) if audio.any() else None,
        second_per_grids=torch.tensor([1.0]) if video else None,
    )
    a, _b = batch.blocks
    assert torch.equal(batch.positions[:, 1, a : a + n], places[:, 0, len(head) : len(head) + n])
    text = parts(model).text
    embedded = text.embed_tokens(ids).clone()
    embedded[0, len(head) : len(head) + n] = torch.from_numpy(sample.vectors)
    with torch.no_grad():
        hidden = text(inputs_embeds=embedded, position_ids=places).last_hidden_state
        wanted = model.lm_head(hidden[0, -1])
        got, _ = trunk(batch)
    before = sum(len(collate.encode(q.answer)) + 1 for q in [*asked[0], asked[1][0]])
    atol, rtol = (0.1, 0.05) if dtype is torch.bfloat16 else (1e-4, 1e-4)
    torch.testing.assert_close(got[before], wanted, atol=atol, rtol=rtol)


def test_products_are_in_bfloat16_where_the_cpu_has_it(monkeypatch) -> None:
    for quick, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("recipe.precision.quick_bfloat16", lambda quick=quick: quick)
        assert working_dtype(torch.device("cpu")) is wanted
        assert working_dtype(torch.device("cuda")) is torch.bfloat16


def test_growing_to_twice_the_layers_keeps_the_logits() -> None:
    torch.manual_seed(1)
    small, large = build_model(TOK, 8), build_model(TOK, 16)
    half = Trunk(parts(small).text, small.lm_head).eval()
    whole = Trunk(parts(large).text, large.lm_head).eval()
    speaker = teach_words(half, TOK)
    grow(parts(small).text, parts(large).text)
    large.lm_head.load_state_dict(small.lm_head.state_dict())
    rng = np.random.default_rng(0)
    sample = make_sample(draw_clip(3), speaker, rng)
    batch = Collator(TOK)([sample], [Asker(rng).draw(sample.clip, 3)], [SYSTEM])
    with torch.no_grad():
        torch.testing.assert_close(whole(batch)[0], half(batch)[0], atol=0.02, rtol=0.02)


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_and_can_be_resumed(tmp_path: Path) -> None:
    torch.manual_seed(2)
    options = LanguageOptions(
        steps=6, clips=2, questions=4, warmup=2, min_s=5.0, max_s=6.0, cut_from=5, cut_share=0.7
    )
    courses = []
    for steps in (6, 14, 14):
        model = build_model(TOK, 8)
        trunk = Trunk(parts(model).text, model.lm_head, probe_layer=3)
        speaker = teach_words(trunk, TOK)
        grown = LanguageOptions(**{**options.__dict__, "steps": steps})
        courses.append(train_language(trunk, TOK, speaker, grown, tmp_path, log=lambda text: None))
    assert [(c.begin, c.step) for c in courses] == [(0, 6), (6, 14), (14, 14)]
    assert courses[0].last < courses[0].first
    assert courses[1].last < courses[0].last
    assert courses[2].first is None  # the stage was complete already
