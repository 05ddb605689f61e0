"""The lab model's recipe, on a made-up language model in place of the pretrained one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab import text
from lab.shape import SPOKEN, build_model, speaker, word_projector
from lab.source import LanguageModel, rotary_rows
from lab.teaching import LabOptions, frozen_copy
from lab.text import divergence, padded
from lab.trunk import MARKERS, LabTrunk
from recipe.answering import load_demo
from recipe.checkpoint import read
from recipe.shape import parts
from recipe.towers import hear, see
from recipe.vocab import build_tokenizer
from tokenizers import Tokenizer
from train_lab import Run
from transformers import Qwen2Config, Qwen2Model

import omnidrop

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
DEMO = SAMPLES / "demo-model"
TOK = build_tokenizer()


def made_up() -> LanguageModel:
    """Return a language model with random weights, of the architecture of the pretrained one."""
    torch.manual_seed(3)
    sizes = {"layers": 3, "width": 128, "inner": 192, "heads": 2, "kv_heads": 1}
    config = Qwen2Config(
        vocab_size=TOK.get_vocab_size(),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    tensors = {name: w.detach().clone() for name, w in Qwen2Model(config).state_dict().items()}
    tensors = {n: torch.zeros_like(w) if n.endswith("bias") else w for n, w in tensors.items()}
    return LanguageModel(tensors, TOK, theta=1e5, eps=1e-5, **sizes)


@pytest.fixture(scope="module")
def trunk() -> tuple[torch.nn.Module, LabTrunk]:
    language = made_up()
    model = build_model(language, DEMO).eval()
    markers = [TOK.token_to_id(name) for name in MARKERS]
    made = LabTrunk(parts(model).text, model.lm_head, word_projector(language), markers)
    return model, made.eval()


def test_rows_in_pairs_become_halves() -> None:
    """Rotating the pairs of one order is rotating the halves of the other."""
    heads, dim = 2, 8
    pairs = np.arange(heads * dim, dtype=np.float32).reshape(-1, 1)
    halves = rotary_rows(pairs, heads)
    assert halves[:dim, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert halves[dim:, 0].tolist() == [8, 10, 12, 14, 9, 11, 13, 15]


def test_plain_text_gives_the_logits_of_transformers(trunk, monkeypatch) -> None:
    monkeypatch.setattr("recipe.trunk.working_dtype", lambda device: torch.float32)
    model, made = trunk
    rows = [TOK.encode(text.chat(q)).ids for q in ("is there a piano", "what is the first shape?")]
    ids, real = padded(rows)
    with torch.no_grad():
        found = made.read(ids, real)
        wanted = model(input_ids=ids, attention_mask=real.long()).logits
    torch.testing.assert_close(found[real], wanted[real], atol=2e-5, rtol=1e-4)


def test_nothing_diverges_before_training(trunk) -> None:
    _, made = trunk
    ids, real = padded([TOK.encode("is there a piano").ids, TOK.encode("yes").ids])
    same = made.read(ids, real)
    assert float(divergence(same, frozen_copy(made).read(ids, real), real)) == pytest.approx(0)
    other = same + torch.randn_like(same)
    assert float(divergence(other, same, real)) > 0.1


def test_answers_written_together_are_those_written_alone(trunk, monkeypatch) -> None:
    model, _ = trunk
    draw = type(model).generate

    def likeliest(self, **asked):
        return draw(self, **{**asked, "do_sample": False, "temperature": None, "top_k": None})

    monkeypatch.setattr(type(model), "generate", likeliest)
    monkeypatch.setattr(text, "TOPICS", ("tea", "the last shape", "soap", "a", "b", "c"))
    alone, together = (
        text.write_answers(model, TOK, held_out=False, tokens=6, batch=batch) for batch in (1, 4)
    )
    asked = text.prompts(held_out=False)
    assert len(alone) == len(asked) == 10
    assert len({len(TOK.encode(text.chat(q)).ids) for q in asked}) > 1, "padding is needed"
    assert together == alone
    begin = TOK.encode(text.chat(asked[0]), add_special_tokens=False).ids
    assert alone[0][: len(begin)] == begin
    assert len(begin) < len(alone[0]) <= len(begin) + 6


def test_a_copy_shares_the_embeddings_and_is_not_trained(trunk) -> None:
    _, made = trunk
    copied = frozen_copy(made)
    assert copied.text.embed_tokens.weight is made.text.embed_tokens.weight
    assert copied.text.layers[0].mlp.up_proj.weight is not made.text.layers[0].mlp.up_proj.weight
    assert not any(p.requires_grad for p in copied.parameters())
    assert any(p.requires_grad for p in made.parameters())


def test_the_projector_says_the_word_of_a_thing() -> None:
    language = made_up()
    layer = word_projector(language, ridge=1e-4)
    heard = torch.from_numpy(speaker().words["piano"])
    table = language.tensors["embed_tokens.weight"]
    nearest = int(torch.nn.functional.cosine_similarity(layer(heard)[None], table).argmax())
    assert TOK.decode([nearest]).strip() == "piano"


@pytest.mark.slow
def test_the_whole_recipe(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(text, "TOPICS", ("bread", "tea", "cats", "maps", "soap", "honey"))
    options = LabOptions(steps=6, horizon=6, clips=2, questions=5, warmup=2, text_rows=2)

    def run(options: LabOptions) -> Run:
        made = Run(tmp_path, options, clips=3, log=lambda text: None)
        made.__dict__["language"] = made_up()
        return made

    stopped = run(replace(options, steps=3))
    stopped.pool()
    stopped.texts()
    assert stopped.teach().step == 3
    course = run(options).teach()
    assert (course.begin, course.step) == (3, 6)
    assert course.last < course.first
    assert run(options).teach().first is None, "a complete stage is passed over"
    learned = read(tmp_path / "lab.pt")["learned"]
    assert not any("embed_tokens" in name or name.startswith("head") for name in learned)
    run(options).export()
    kept = json.loads((tmp_path / "lab-model" / "language.json").read_text(encoding="utf-8"))
    assert kept["step"] == 6
    assert 0 <= kept["same_next_token"] <= 1

    demo, _, _ = load_demo(DEMO)
    lab, _, _ = load_demo(tmp_path / "lab-model")
    trained = run(options).trunk()[1]
    trained.load_state_dict(learned, strict=False)
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 32_000).astype(np.float32)
    frames = rng.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    with torch.no_grad():
        for tower, given in ((hear, sound), (see, frames)):
            name = "audio" if tower is hear else "vision"
            spoken = tower(getattr(parts(demo), name), given)
            assert spoken.shape[1] == SPOKEN
            folded = tower(getattr(parts(lab), name), given)
            torch.testing.assert_close(folded, trained.projector(spoken), atol=0.02, rtol=0.02)

    encoded = Tokenizer.from_file(str(tmp_path / "lab-model" / "tokenizer.json"))
    model = omnidrop.load(str(tmp_path / "lab-model"), dtype="float32")
    question = "Which instrument plays first?"
    assert model.adapter.text.encode(question)[0] == encoded.encode(question).ids
    with model.open(SAMPLES / "duet.mp4") as clip:
        answer = clip.ask(question)
    assert answer.trace.layers, "its tokens are pruned like any model's"
