"""The shipped demo model loads with transformers alone and answers about the sample clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from avsynth.ready import ready_clips
from recipe.answering import decode, generate_one, load_demo
from recipe.vocab import SPECIAL, build_tokenizer

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FOLDER = SAMPLES / "demo-model"


@pytest.fixture(scope="module")
def demo():
    return load_demo(FOLDER)


def test_layout_and_size() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    text = config["text_config"]
    assert config["architectures"] == ["Qwen2_5OmniThinkerForConditionalGeneration"]
    assert text["num_hidden_layers"] >= 16
    assert text["num_attention_heads"] > text["num_key_value_heads"]
    head = text["hidden_size"] // text["num_attention_heads"]
    assert sum(text["rope_parameters"]["mrope_section"]) * 2 == head
    assert (FOLDER / "model.safetensors").stat().st_size <= 30_000_000


def test_the_checkpoint_has_no_missing_or_unexpected_weights() -> None:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    _, info = Thinker.from_pretrained(FOLDER, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]


def test_tokenizer_is_built_by_the_recipe_and_has_the_special_tokens() -> None:
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(FOLDER)
    made = build_tokenizer()
    for text in (
        "What instrument plays first?",
        "WHICH COLOUR IS THE STAR",
        "bottom left<|im_end|>",
    ):
        assert tok(text).input_ids == made.encode(text, add_special_tokens=False).ids
    assert [tok.convert_tokens_to_ids(t) for t in SPECIAL] == [made.token_to_id(t) for t in SPECIAL]
    assert tok.audio_token == "<|AUDIO|>"
    assert tok.vision_bos_token == "<|vision_bos|>"


def test_it_answers_what_plays_first_in_the_duet(demo) -> None:
    model, _, tok = demo
    media = decode(SAMPLES / "duet.mp4")
    assert generate_one(model, tok, *media, "What instrument plays first?") == "piano"


def test_most_questions_about_the_sample_clips_are_answered(demo) -> None:
    """Of twelve answers, one or two wrong ones are within the accuracy that the card states."""
    model, _, tok = demo
    right = total = 0
    for item in ready_clips():
        if item.name == "long":  # much longer than the clips in training
            continue
        media = decode(SAMPLES / f"{item.name}.mp4")
        for question, answer in item.ask:
            right += generate_one(model, tok, *media, question) == answer
            total += 1
    assert right >= total - 2


def test_the_packed_forward_answers_as_generate_does(demo) -> None:
    from avsynth.questions import Question
    from recipe.answering import media_sample
    from recipe.measure import answer_all

    model, trunk, tok = demo
    media = decode(SAMPLES / "flash.mp4")
    texts = ["Which digit flashes?", "Which instrument plays last?", "What color is the triangle?"]
    asked = [Question(t, "yellow", (), "x", "both", False, True) for t in texts]
    packed = answer_all(trunk, tok, [(media_sample(model, *media), asked)])
    alone = [generate_one(model, tok, *media, t) for t in texts]
    assert [s.said.split()[0] for s in packed] == [a.split()[0] for a in alone]


def test_the_card_has_its_figures() -> None:
    card = (FOLDER / "README.md").read_text()
    for part in ("Accuracy on AVSynth test", "sparse evidence", "Recipe", "Licence", "Limits"):
        assert part in card
    assert (FOLDER / "depth.png").exists()


def test_the_recorded_accuracy_is_from_a_whole_run() -> None:
    result = json.loads((SAMPLES / "results" / "demo.json").read_text())
    assert result["accuracy"]["all"][1] >= 400
    assert len(result["depth"]["all"]) == 17
    assert np.isclose(result["depth"]["all"][-1], result["accuracy"]["all"][0], atol=1e-6)


def test_weights_are_finite(demo) -> None:
    model, _, _ = demo
    assert all(torch.isfinite(p).all() for p in model.parameters())
