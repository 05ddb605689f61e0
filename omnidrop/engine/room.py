"""Whether an answer fits into the memory that is left, before the clip is decoded.

The prompt's size follows from the clip's lengths, so that an answer that cannot fit is refused at
once and not after minutes of decoding, or by the system's out-of-memory killer.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnidrop.errors import MemoryShortError
from omnidrop.models.adapter import Adapter
from omnidrop.models.memory import gigabytes, has_own_memory, memory_free
from omnidrop.shapes import with_buffers
from omnidrop.tokens import Media, Prompt

#: Text tokens that are allowed for where the prompt has not been built.
TEXT_ROWS = 4096


def surely_fits(adapter: Adapter, media: Media, own_layers: int = 0) -> bool:
    """Whether a clip fits even with every token kept; needs no prompt and takes no time.

    Parameters
    ----------
    adapter : Adapter
    media : Media
    own_layers : int
        `Method.own_layers`.
    """
    merge = adapter.info.vision.merge
    video = media.grid[0] * media.grid[1] * media.grid[2] // merge**2 if media.grid else 0
    rows = video + media.audio_tokens + TEXT_ROWS
    need = _need(adapter, media, [rows] * adapter.info.text.layers, rows, video, own_layers)
    return need <= memory_free(adapter.device, adapter.weights)


def check_room(
    adapter: Adapter,
    media: Media,
    prompt: Prompt,
    counts: Sequence[int],
    hint: str,
    own_layers: int = 0,
) -> None:
    """Refuse an answer that takes more than the memory that is left.

    Parameters
    ----------
    adapter : Adapter
        Loaded; its weights are not counted again.
    media : Media
        Sizes of the clip.
    prompt : Prompt
    counts : sequence of int, length L
        Audio and video tokens that the method plans for each layer; empty if they are not known
        yet, so that only the encoders are checked.
    hint : str
        The remedy.
    own_layers : int
        `Method.own_layers`.

    Raises
    ------
    MemoryShortError
        With what is needed and what is free.
    """
    tokens = prompt.tokens
    av, video = int(tokens.av.sum()), int(tokens.video.sum())
    text = len(prompt) - av
    lengths = [text + count for count in counts]
    need = _need(adapter, media, lengths, len(prompt), video, own_layers)
    free = memory_free(adapter.device, adapter.weights)
    if need <= free:
        return
    raise MemoryShortError(
        f"This needs about {gigabytes(need)} beside the model's weights, for {av:,} audio and "
        f"video tokens, and {gigabytes(free)} are free on {adapter.device}.",
        hint=hint,
    )


def _need(
    adapter: Adapter,
    media: Media,
    lengths: Sequence[int],
    rows: int,
    video: int,
    own_layers: int,
) -> int:
    """Return the peak in bytes, without the model's weights."""
    return adapter.weights.buffer_bytes + with_buffers(
        adapter.info.shapes.peak_bytes(
            lengths,
            adapter.dtype.itemsize,
            rows=rows,
            video=video,
            grid=media.grid,
            gpu=has_own_memory(adapter.device),
            own_layers=own_layers,
        )
    )
