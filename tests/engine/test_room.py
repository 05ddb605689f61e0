"""An answer that cannot fit is refused before the clip is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

import omnidrop
from omnidrop import Model
from omnidrop.engine import room
from omnidrop.errors import MemoryShortError
from omnidrop.models import memory
from omnidrop.options import GenerateOptions
from omnidrop.testing import media

QUESTION = "What is there?"
SHORT = GenerateOptions(max_new_tokens=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("room") / "a.mp4", size=(128, 96))


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(memory, "host_memory_free", lambda _: count)


def undecodable(*_: object, **__: object) -> None:
    pytest.fail("the clip was decoded")


def test_a_clip_that_does_not_fit_is_refused_before_it_is_decoded(
    model: Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 1000)
    monkeypatch.setattr("omnidrop.engine.session.encode_clip", undecodable)
    with model.open(path) as clip:
        with pytest.raises(
            MemoryShortError, match=r"about .*MB beside the model's weights"
        ) as told:
            clip.ask(QUESTION)
        assert "0.0 MB are free on cpu" in str(told.value)
        assert "--max-pixels" in (told.value.hint or "")


def test_a_budget_can_make_it_fit(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.audio_only(tmp_path / "a.m4a", "aac", seconds=40)
    with model.open(path) as clip:
        whole = _need(model, clip, omnidrop.get_method("none"))
        pruned = _need(model, clip, omnidrop.Uniform(budget=0.1))
    assert pruned < whole
    free(monkeypatch, (pruned + whole) // 2)
    with model.open(path) as clip:
        with pytest.raises(MemoryShortError):
            clip.ask(QUESTION, method=omnidrop.get_method("none"))
        clip.ask(QUESTION, method=omnidrop.Uniform(budget=0.1), options=SHORT)


def test_an_encoded_clip_is_not_checked_again(
    model: Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model.open(path) as clip:
        first = clip.ask(QUESTION)
        free(monkeypatch, 1000)
        assert clip.ask(QUESTION).token_ids == first.token_ids


def _need(model: Model, clip: omnidrop.Session, method: omnidrop.Method) -> int:
    from omnidrop.engine.encode import media_of
    from omnidrop.prompt import build_prompt

    assert clip.clip is not None
    found = media_of(clip.clip)
    adapter = model.adapter
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, found)
    tokens = prompt.tokens.select(prompt.tokens.av)
    counts = method.plan(tokens, adapter.info.text.layers).counts
    text = len(prompt) - len(tokens)
    lengths, video = [text + c for c in counts], int(prompt.tokens.video.sum())
    return room._need(adapter, found, lengths, len(prompt), video, method.own_layers)
