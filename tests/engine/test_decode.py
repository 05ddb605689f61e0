"""Picking tokens, streaming text, options that cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.engine.decode import GenerateOptions, TextStream, pick
from omnidrop.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_greedy_takes_the_highest() -> None:
    assert pick(torch.tensor([0.1, 3.0, 2.9]), GenerateOptions(), generator()) == 1


@given(st.floats(0.05, 1.0), st.integers(0, 10_000))
def test_top_p_draws_only_from_the_smallest_sufficient_set(top_p: float, seed: int) -> None:
    logits = torch.randn(50, generator=generator(seed)) * 3
    options = GenerateOptions(temperature=1.0, top_p=top_p, seed=seed)
    token = pick(logits, options, generator(seed))
    probabilities, order = logits.softmax(-1).sort(descending=True)
    needed = int((probabilities.cumsum(-1) < top_p - 1e-6).sum()) + 1
    assert token in order[: needed + 1].tolist()


def test_a_seed_repeats_and_temperature_spreads() -> None:
    logits = torch.linspace(0, 2, 20)
    options = GenerateOptions(temperature=2.0)
    first = [pick(logits, options, g) for g in [generator(3)] for _ in range(20)]
    second = [pick(logits, options, g) for g in [generator(3)] for _ in range(20)]
    assert first == second
    assert len(set(first)) > 3


def test_a_tiny_top_p_is_greedy() -> None:
    logits = torch.randn(30)
    options = GenerateOptions(temperature=5.0, top_p=1e-9)
    assert pick(logits, options, generator()) == int(logits.argmax())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"seed": -1},
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        GenerateOptions(**wrong)  # type: ignore[arg-type]


def decode_utf8(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


@given(st.text(max_size=20))
def test_streamed_pieces_join_to_the_text(text: str) -> None:
    pieces: list[str] = []
    stream = TextStream(decode_utf8, pieces.append)
    for byte in text.encode():
        stream.push(byte)
    whole = stream.finish()
    assert whole == text
    assert "".join(pieces) == text


def test_no_piece_ends_inside_a_character() -> None:
    pieces: list[str] = []
    stream = TextStream(decode_utf8, pieces.append)
    for byte in "é♫".encode():
        stream.push(byte)
    assert pieces == ["é", "♫"]


def test_broken_bytes_are_still_told_at_the_end() -> None:
    pieces: list[str] = []
    stream = TextStream(decode_utf8, pieces.append)
    stream.push(0xC3)
    assert stream.finish() == "\ufffd"
    assert pieces == ["\ufffd"]
