"""Families: found by model type, listed once, and complete in what the package needs."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from omnidrop.errors import ModelError
from omnidrop.models import family as module
from omnidrop.models.family import (
    aliases,
    families,
    family_of,
    published,
    registered,
    special_ids,
)
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.locations import inspect
from omnidrop.models.unloaded import describe
from omnidrop.prompt import build_prompt, encode_pieces
from omnidrop.testing import tiny_checkpoint
from omnidrop.testing.made_up_family import FAMILY
from omnidrop.tokens import Kind, Media

ALL = ("qwen2_5_omni", "qwen3_omni_moe", "qwen2_5_vl", "made_up_omni")


@pytest.fixture(scope="module", params=ALL)
def folder(request, tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def adapter(folder: Path):
    return load_adapter(LoadOptions(model=str(folder), device="cpu", dtype="float32"))


def test_a_family_is_found_by_its_model_type():
    names = ["Qwen2.5-Omni", "Qwen3-Omni", "video-SALMONN 2+", "Made-Up-Omni"]
    assert [family_of(kind).name for kind in ALL] == names
    assert family_of("qwen2_5_omni_thinker") is family_of("qwen2_5_omni")
    assert family_of("llama") is None
    assert family_of(None) is None
    kinds = [kind for family in families() for kind in family.model_types]
    assert len(set(kinds)) == len(kinds)


def test_a_family_is_known_only_where_it_is_registered():
    other = replace(FAMILY, name="Other", model_types=("other",), aliases={"o": "a/Other"})
    with registered(other):
        assert family_of("other") is other
        assert aliases()["o"] == "a/Other"
    assert family_of("other") is None
    assert "o" not in aliases()


def test_families_of_other_packages_are_entry_points(monkeypatch):
    entry = EntryPoint("made-up", "omnidrop.testing.made_up_family:FAMILY", module.GROUP)
    monkeypatch.setattr(module, "entry_points", lambda group: [entry] * (group == module.GROUP))
    module._installed.cache_clear()
    try:
        assert module._installed()[-1] is FAMILY
    finally:
        monkeypatch.undo()
        module._installed.cache_clear()
    assert FAMILY not in module._installed()


def test_a_checkpoint_of_no_known_family_is_refused_with_the_known_ones(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=r"Qwen2\.5-Omni \(qwen2_5_omni, .*Made-Up-Omni"):
        inspect(tmp_path)
    with pytest.raises(ValueError, match="no family of llama"):
        tiny_checkpoint(tmp_path, "llama")


def test_published_models_have_aliases_and_sizes():
    for name in aliases().values():
        found = published(name)
        assert found is not None
        assert name in found[0].aliases.values()
        assert found[1].parameters > 1e9
    assert published("nobody/nothing") is None


def test_unused_weights_are_neither_counted_nor_loaded(adapter):
    loaded = sum(p.numel() for p in _module_of(adapter).parameters())
    assert adapter.info.parameters == loaded


def _module_of(adapter):
    return adapter._thinker if hasattr(adapter, "_thinker") else adapter._model


def test_sizes_are_those_of_the_weights(adapter):
    """Matrices and tables are over 90 % of the weights."""
    assert 0.9 < adapter.info.shapes.parameters / adapter.info.parameters <= 1.0


def test_a_model_is_described_without_its_weights(folder, adapter):
    known = describe(LoadOptions(model=str(folder), device="cpu", dtype="float32"))
    assert known.shapes == adapter.info.shapes
    assert (known.video_spec, known.audio_spec) == (adapter.video_spec, adapter.audio_spec)
    assert known.parameters == adapter.info.parameters
    assert known.weights == 4 * known.parameters
    media = Media((3, 4, 8), 0.7, 12)
    rough = build_prompt(known.encoder, known.template, "Who plays?", media)
    exact = build_prompt(adapter.text, adapter.template, "Who plays?", media)
    assert torch.equal(rough.tokens.kind, exact.tokens.kind)
    assert torch.equal(rough.positions, exact.positions)


def test_encoders_return_as_many_tokens_as_the_template_counts(adapter):
    template, spec = adapter.template, adapter.audio_spec
    for frames in (1, 9, 10, 57, 400, 1234):
        mel = torch.randn(spec.n_mels, frames)
        assert len(adapter.encode_audio(mel).planes[0]) == template.audio_tokens(frames)
    long = 100_000 // adapter.info.audio.window * adapter.info.audio.window
    assert template.audio_tokens(long) == pytest.approx(long / template.mel_per_token, abs=1)
    video = adapter.video_spec
    grid = (3, 2 * video.merge_size, 4 * video.merge_size)
    width = 3 * video.temporal_patch_size * video.patch_size**2
    rows = torch.randn(torch.Size(grid).numel(), width)
    found = adapter.encode_video(rows, grid, attention=True)
    assert [plane.shape for plane in found.planes] == (
        [(3 * 2 * 4, adapter.info.text.hidden)] * adapter.info.vision.planes
    )
    assert found.received.shape == (3 * 2 * 4,)


@pytest.mark.parametrize(
    "media",
    [Media((4, 4, 8), 0.7, 33), Media((2, 4, 4), 3.5, 0), Media(None, None, 21)],
    ids=["both", "silent", "audio only"],
)
def test_a_template_lays_out_every_token_once(adapter, media):
    template = adapter.template
    clip = template.clip(media, 7)
    tokens = clip.tokens
    assert len(clip.ids) == len(tokens) == clip.positions.shape[1]
    assert clip.positions.dtype == template.position_dtype
    assert float(clip.positions.min()) >= 7
    assert clip.end > float(clip.positions[:, -1].max())
    merge = adapter.video_spec.merge_size
    grid = media.grid or (0, 0, 0)
    assert int(tokens.video.sum()) == grid[0] * (grid[1] // merge) * (grid[2] // merge)
    assert tokens.grid[tokens.audio][:, 0].tolist() == list(range(media.audio_tokens))
    assert bool((tokens.kind[~tokens.av] == Kind.MARKER).all())
    heard = (
        media.audio_tokens * float(template.mel_per_token) / adapter.audio_spec.frames_per_second
    )
    seconds = max(grid[0] * (media.second_per_grid or 0), heard)
    assert tokens.chunks <= seconds / template.chunk_seconds + 1
    assert (tokens.chunk[tokens.av] >= 0).all()


def test_another_turn_ends_the_answer_and_opens_the_next(adapter):
    template = adapter.template
    _, after = template.chat("First?", None, media=True)
    ids, _ = encode_pieces(adapter.text, after)
    more, kinds = encode_pieces(adapter.text, template.follow_up("Second?"))
    assert more[0] in adapter.stop_ids
    opening = next(n for n in range(1, len(ids)) if ids[-n] in adapter.stop_ids)
    assert more[-opening:] == ids[-opening:]
    asked = [i for i, kind in zip(more, kinds, strict=True) if kind == Kind.QUESTION]
    assert adapter.text.decode(asked) == "Second?"


def test_the_default_system_turn_depends_on_the_family(adapter):
    template = adapter.template
    usual, _ = template.chat("Who?", None, media=True)
    given, _ = template.chat("Who?", "Be short.", media=True)
    text = [piece for piece in usual if isinstance(piece, str)]
    if template.system:
        assert any(template.system in piece for piece in text)
    else:
        assert not any("system" in piece for piece in text)
    assert any("Be short." in piece for piece in given if isinstance(piece, str))


def test_sizes_of_the_published_mixture():
    """A key and a value of 4 heads of 128 in 48 layers, and 30.5 billion weights in the decoder."""
    found = published("Qwen/Qwen3-Omni-30B-A3B-Thinking")
    assert found is not None
    text = found[1].text
    assert text.kv_bytes([1] * 48) == 96 * 1024
    assert text.parameters == pytest.approx(30.5e9, rel=0.002)
    few = describe(LoadOptions(model="qwen3-30b", device="cpu", quantize="4bit"))
    whole = describe(LoadOptions(model="qwen3-30b", device="cpu"))
    assert (few.here, whole.here) == (False, False)
    assert 18.5e9 < few.weights < 19e9  # the tables in 8 bits
    card = describe(
        LoadOptions(model="qwen3-30b", device="cpu", dtype="bfloat16", quantize="4bit"), card=True
    )
    assert 19e9 < card.weights < 20e9
    assert 63e9 < whole.weights < 64e9
    assert few.media_spec.audio_tokens(6000) == 60 * 13


def test_ids_of_special_tokens_are_the_tokenizers_and_the_configs():
    tokens, stated = {"begin": "B", "end": "E", "video": "V"}, {"end": 6, "video": 7}

    def ids(**known):
        return special_ids(SimpleNamespace(id=known.get), tokens, stated, "tiny")

    assert special_ids(None, tokens, stated, "tiny") == {"begin": 0, "end": 1, "video": 2}
    assert ids(B=5, E=6, V=7, X=8) == {"begin": 5, "end": 6, "video": 7}
    with pytest.raises(ModelError, match=r"The tokenizer of tiny has no B V\."):
        ids(E=6)
    with pytest.raises(ModelError, match=r"tiny gives V the id 0, its config 7\."):
        ids(B=5, E=6, V=0)
