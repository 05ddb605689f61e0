"""Chat template → token ids, M-RoPE positions, and a TokenMap that says what each token is.

Every index in every report refers to the TokenMap made here. Ids and positions equal those of the
reference (processor and `get_rope_index` of transformers' Qwen2.5-Omni).
"""

from __future__ import annotations

import numpy as np
import torch

from omnidrop.errors import UsageError
from omnidrop.positions import Layout, grid_positions, placeholder_order, positions, video_cells
from omnidrop.tokens import Asked, Kind, Media, Piece, Prompt, TextEncoder, TokenMap


def render_chat(
    layout: Layout, question: str, media: Media, system: str | None = None
) -> tuple[list[Piece], list[Piece]]:
    """Write the chat around the clip.

    Returns
    -------
    before, after : list of int, str or Asked
        Special ids and the text between them, before and after the clip.

    Notes
    -----
    The chat template of Qwen/Qwen2.5-Omni: system turn, user turn with the clip and then the
    question, and the opening of the answer.
    """
    instruction = layout.system if system is None else system
    start, end = layout.im_start, layout.im_end
    before: list[Piece] = [start, f"system\n{instruction}", end, "\n", start]
    answer: list[Piece] = [end, "\n", start, "assistant\n"]
    if media:
        return [*before, "user\n"], [Asked(question, 0), *answer]
    return [*before, Asked(f"user\n{question}", len("user\n"))], answer


def _clip_ids(layout: Layout, media: Media, order: np.ndarray, video: int) -> list[int]:
    """Markers and placeholders of a clip."""
    ids = np.where(order < video, layout.video, layout.audio).tolist()
    if media.audio_tokens:
        ids = [layout.audio_bos, *ids, layout.audio_eos]
    if media.grid is not None:
        ids = [layout.vision_bos, *ids, layout.vision_eos]
    return ids


def _encode(encoder: TextEncoder, pieces: list[Piece]) -> tuple[list[int], list[int]]:
    """Ids and kinds of a run of special ids and text."""
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


def _legible(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The {what} is not valid UTF-8 text.", hint="Type it anew, or save it as UTF-8."
        ) from error


def build_prompt(
    encoder: TextEncoder,
    layout: Layout,
    question: str,
    media: Media,
    *,
    system: str | None = None,
) -> Prompt:
    """Make the whole prompt of one question about one clip.

    Parameters
    ----------
    encoder : TextEncoder
        Tokenizer of the model.
    layout : Layout
        Special ids and time scale of the model.
    question : str
        The user's words. Special tokens spelled out in them are read as plain text.
    media : Media
        What of the clip there is; `Media()` for none.
    system : str, optional
        System prompt; the layout's own if None.

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
    _legible(question, "question")
    _legible(system or "", "system prompt")
    before, after = render_chat(layout, question, media, system)
    head, head_kinds = _encode(encoder, before)
    tail, tail_kinds = _encode(encoder, after)
    if not media:
        ids, kinds = head + tail, np.array(head_kinds + tail_kinds)
        return _prompt(ids, positions(layout, media, len(head), len(tail)), _text_map(kinds))
    cells = video_cells(layout, media.grid) if media.grid else np.empty((0, 3), np.int64)
    order = placeholder_order(layout, media, cells)
    clip = _clip_ids(layout, media, order, len(cells))
    markers = (len(clip) - len(order)) // 2
    edge = [int(Kind.MARKER)] * markers
    inside = np.where(order < len(cells), int(Kind.VIDEO), int(Kind.AUDIO)).tolist()
    kinds = np.array([*head_kinds, *edge, *inside, *edge, *tail_kinds])
    tokens = _text_map(kinds)
    _place(layout, media, tokens, cells, order, len(head) + markers)
    return _prompt([*head, *clip, *tail], positions(layout, media, len(head), len(tail)), tokens)


def _prompt(ids: list[int], where: torch.Tensor, tokens: TokenMap) -> Prompt:
    return Prompt(torch.tensor(ids), where, tokens, next_position=int(where.max()) + 1)


def _text_map(kinds: np.ndarray) -> TokenMap:
    """TokenMap in which no token has a place yet."""
    n = len(kinds)
    return TokenMap(
        kind=torch.from_numpy(kinds.astype(np.int8)),
        chunk=torch.full((n,), -1, dtype=torch.int32),
        grid=torch.full((n, 3), -1, dtype=torch.int32),
    )


def _place(
    layout: Layout, media: Media, tokens: TokenMap, cells: np.ndarray, order: np.ndarray, first: int
) -> None:
    """Write chunk and cell of the clip's tokens, the first of which is token `first`."""
    audio = np.arange(media.audio_tokens)
    heard = np.stack([audio, np.full_like(audio, -1), np.full_like(audio, -1)], axis=1)
    chunk = audio // layout.chunk_positions
    if media.grid is not None:
        step = grid_positions(layout, media)[cells[:, 0]]
        chunk = np.concatenate([step // layout.chunk_positions, chunk])
    where = slice(first, first + len(order))
    grid = np.concatenate([cells, heard])[order].astype(np.int32)
    tokens.grid[where] = torch.from_numpy(grid)
    tokens.chunk[where] = torch.from_numpy(chunk[order].astype(np.int32))


def long_position_notice(prompt: Prompt, limit: int = 32768) -> str | None:
    """Say so if a prompt's positions leave the range a model was trained on.

    Parameters
    ----------
    prompt : Prompt
    limit : int
        Positions the model was trained on.

    Returns
    -------
    str or None
        One sentence for a person, or None if all is well.
    """
    if prompt.next_position <= limit:
        return None
    return (
        f"The prompt reaches position {prompt.next_position - 1}, beyond the {limit} the model was "
        "trained on (25 a second), so answers may suffer; a shorter span (--start, --end) helps."
    )
