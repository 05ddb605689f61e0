"""Builds a prompt from a question and a clip: token ids, positions and a TokenMap.

What is specific to a model family (chat, order, positions) comes from its template; this module
encodes the text and joins the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from omnidrop.errors import UsageError
from omnidrop.models.family import Template
from omnidrop.tokens import Asked, ClipTokens, Kind, Media, Piece, Prompt, TextEncoder, TokenMap


@dataclass(frozen=True)
class Turn:
    """An earlier question of a conversation and its answer.

    Attributes
    ----------
    question : str
    answer : tuple of int
        Ids of the answer as they were generated, the stop token excluded.
    """

    question: str
    answer: tuple[int, ...]


def build_prompt(
    encoder: TextEncoder,
    template: Template,
    question: str,
    media: Media,
    *,
    system: str | None = None,
    earlier: Sequence[Turn] = (),
) -> Prompt:
    """Build the prompt of one question about one clip.

    The clip stands in the first turn of a conversation. Only the words of the last question count
    as the question (`Kind.QUESTION`), so that the selection of tokens follows the last question.

    Parameters
    ----------
    encoder : TextEncoder
        Tokenizer of the model.
    template : Template
        Prompt template of the model's family.
    question : str
        The user's words. Special tokens written in them are treated as plain text.
    media : Media
        Sizes of the clip's video and audio; `Media()` for no clip.
    system : str, optional
        System prompt; the family's own if None.
    earlier : sequence of Turn
        Earlier turns of the conversation, the oldest first.

    Returns
    -------
    Prompt

    Raises
    ------
    UsageError
        If the question is empty, or not text.
    """
    if not question.strip():
        raise UsageError("The question is empty.", hint="Ask something about the clip.")
    _check_text(question, "question")
    _check_text(system or "", "system prompt")
    before, after = _conversation(template, question, system, earlier, bool(media))
    head, head_kinds = encode_pieces(encoder, before)
    tail, tail_kinds = encode_pieces(encoder, after)
    clip = template.clip(media, len(head)) if media else _nothing(len(head), template)
    positions = torch.cat(
        [
            _text_positions(0, len(head), clip.positions.dtype),
            clip.positions,
            _text_positions(clip.end, len(tail), clip.positions.dtype),
        ],
        dim=1,
    )
    return Prompt(
        ids=torch.cat([torch.tensor(head, dtype=torch.int64), clip.ids, torch.tensor(tail)]),
        positions=positions,
        tokens=_joined(_text_map(head_kinds), clip.tokens, _text_map(tail_kinds)),
        next_position=template.next_position(positions),
    )


def _conversation(
    template: Template,
    question: str,
    system: str | None,
    earlier: Sequence[Turn],
    media: bool,
) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces before and after the clip."""
    if not earlier:
        return template.chat(question, system, media=media)
    first, *later = [turn.question for turn in earlier]
    before, after = map(_as_text, template.chat(first, system, media=media))
    for turn, following in zip(earlier, later, strict=False):
        after += [*turn.answer, *_as_text(template.follow_up(following))]
    return before, [*after, *earlier[-1].answer, *template.follow_up(question)]


def _as_text(pieces: list[Piece]) -> list[Piece]:
    """Return pieces in which no words are the question."""
    return [piece.text if isinstance(piece, Asked) else piece for piece in pieces]


def encode_pieces(encoder: TextEncoder, pieces: list[Piece]) -> tuple[list[int], list[int]]:
    """Encode a list of special ids and text.

    Parameters
    ----------
    encoder : TextEncoder
    pieces : list of int, str or Asked

    Returns
    -------
    ids, kinds : list of int
        Token ids, and a `Kind` for each: QUESTION for the user's words, TEXT for the rest.
    """
    ids: list[int] = []
    kinds: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            kinds.append(Kind.TEXT)
            continue
        text, asked = piece if isinstance(piece, Asked) else (piece, len(piece) + 1)
        words, spans = encoder.encode(text)
        ids += words
        kinds += [Kind.QUESTION if a >= asked or b > asked else Kind.TEXT for a, b in spans]
    return ids, kinds


def _check_text(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The {what} is not valid UTF-8 text.", hint="Type it again, or save it as UTF-8."
        ) from error


def _nothing(start: int, template: Template) -> ClipTokens:
    none = torch.empty((3, 0), dtype=template.position_dtype)
    return ClipTokens(torch.empty(0, dtype=torch.int64), _text_map([]), none, start)


def _text_positions(start: int | float, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Positions of text, (3, count): consecutive, the same in all three rows."""
    return (start + torch.arange(count).to(dtype)).expand(3, -1)


def _text_map(kinds: list[int]) -> TokenMap:
    """TokenMap of tokens outside the clip."""
    n = len(kinds)
    return TokenMap(
        kind=torch.tensor(kinds, dtype=torch.int8),
        chunk=torch.full((n,), -1, dtype=torch.int32),
        grid=torch.full((n, 3), -1, dtype=torch.int32),
    )


def _joined(*maps: TokenMap) -> TokenMap:
    return TokenMap(
        kind=torch.cat([part.kind for part in maps]),
        chunk=torch.cat([part.chunk for part in maps]),
        grid=torch.cat([part.grid for part in maps]),
    )


def long_position_notice(prompt: Prompt, template: Template) -> str | None:
    """Return a notice if a prompt's positions exceed the range that the model was trained on.

    Parameters
    ----------
    prompt : Prompt
    template : Template
        Has the range.

    Returns
    -------
    str or None
        One sentence for the user, or None if the positions are in range.
    """
    limit, last = template.max_positions, int(prompt.next_position - 1)
    if prompt.next_position <= limit:
        return None
    return (
        f"The prompt reaches position {last}, beyond the {limit} the model was trained on "
        f"({template.positions_per_second:g} a second), so answers may be worse; choose a "
        "shorter span (--start, --end)."
    )
