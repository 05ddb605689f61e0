"""Token selection, streaming of text, invalid options."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.engine.answer_stream import AnswerStream, TextStream
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.picking import BLOCK, Draws, Picker
from omnidrop.errors import UsageError
from omnidrop.models.adapter import Thinking


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pick(logits: torch.Tensor, draw: float = 0.5, **how: float) -> int:
    return int(Picker(**how)(logits, torch.tensor([draw])))


def test_greedy_takes_the_highest() -> None:
    assert pick(torch.tensor([0.1, 3.0, 2.9])) == 1


@given(st.floats(0.05, 1.0), st.integers(0, 10_000))
def test_top_p_draws_only_from_the_smallest_sufficient_set(top_p: float, seed: int) -> None:
    logits = torch.randn(50, generator=generator(seed)) * 3
    token = pick(logits, float(Draws(seed)(0)), temperature=1.0, top_p=top_p)
    probabilities, order = logits.softmax(-1).sort(descending=True)
    needed = int((probabilities.cumsum(-1) < top_p - 1e-6).sum()) + 1
    assert token in order[: needed + 1].tolist()


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_sampled_frequencies_equal_the_probabilities(top_p: float) -> None:
    logits = torch.tensor([0.3, -1.0, 1.1, -torch.inf, 0.6])
    wanted = (logits / 1.5).softmax(-1)
    if top_p < 1:  # the three most probable
        wanted[1] = 0
        wanted /= wanted.sum()
    tokens = [pick(logits, (i + 0.5) / 4000, temperature=1.5, top_p=top_p) for i in range(4000)]
    shares = torch.bincount(torch.tensor(tokens), minlength=5) / 4000
    torch.testing.assert_close(shares, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_extreme_draws_give_tokens_of_positive_probability(draw: float) -> None:
    logits = torch.full((1000,), -torch.inf)
    logits[[3, 500]] = 0.0
    assert pick(logits, draw, temperature=1.0) == (3 if draw == 0 else 500)


def test_a_seed_repeats_and_temperature_increases_variety() -> None:
    logits = torch.linspace(0, 2, 20)
    first, second = (
        [pick(logits, float(draws(i)), temperature=2.0) for i in range(20)]
        for draws in (Draws(3), Draws(3))
    )
    assert first == second
    assert len(set(first)) > 3


def test_draws_do_not_depend_on_how_many_are_requested() -> None:
    one, many = Draws(7), Draws(7)
    whole = many(0, 2 * BLOCK + 5)
    assert torch.equal(whole, torch.cat([one(i) for i in range(2 * BLOCK + 5)]))
    assert torch.equal(one(BLOCK - 1, 3), whole[BLOCK - 1 : BLOCK + 2])


def test_a_tiny_top_p_is_greedy() -> None:
    logits = torch.randn(30)
    assert pick(logits, 0.99, temperature=5.0, top_p=1e-9) == int(logits.argmax())


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
def test_invalid_options_are_refused(wrong: dict[str, float]) -> None:
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


def test_incomplete_bytes_are_emitted_at_the_end() -> None:
    pieces: list[str] = []
    stream = TextStream(decode_utf8, pieces.append)
    stream.push(0xC3)
    assert stream.finish() == "\ufffd"
    assert pieces == ["\ufffd"]


def streamed(tokens: str, marks: Thinking | None) -> tuple[str, str, bool, list[str]]:
    pieces: list[str] = []
    stream = AnswerStream(decode_utf8, marks, pieces.append)
    for byte in tokens.encode():
        stream.push(byte)
    return stream.finish(), stream.thoughts, stream.inside, pieces


def test_thoughts_are_no_part_of_an_answer() -> None:
    marks = Thinking(ord("("), ord(")"))
    assert streamed("(a b)\n\na piano", marks)[:3] == ("a piano", "a b", False)
    assert streamed("a piano", marks)[:3] == ("a piano", "", False)
    text, thoughts, inside, pieces = streamed("( on and on", marks)
    assert (text, thoughts, inside, pieces) == ("", "on and on", True, [])


def test_a_thought_that_the_prompt_began_ends_with_its_mark() -> None:
    marks = Thinking(ord("("), ord(")"), opened=True)
    text, thoughts, inside, pieces = streamed("so\n)\n\n piano x", marks)
    assert (text, thoughts, inside) == ("piano x", "so", False)
    assert "".join(pieces) == text
    assert streamed("so it", marks)[1:3] == ("so it", True)


def test_a_model_that_does_not_think_keeps_every_character() -> None:
    assert streamed(" (a) b", None)[:3] == (" (a) b", "", False)
