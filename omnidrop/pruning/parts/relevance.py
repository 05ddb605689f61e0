"""Query→token attention: the only maths in the package that sees queries and keys.

Only the rows asked for are computed, so no layer has to run in eager mode: a handful of question
rows against the keys already in the layer's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

#: Scores held at once, in elements: 16 Mi of float32 are 64 MiB.
BLOCK_ELEMENTS = 16 * 1024 * 1024


def relevance(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor | slice,
    scaling: float,
    *,
    block_elements: int = BLOCK_ELEMENTS,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention that some rows pay to some columns, averaged over rows and heads.

    OmniDrop (arXiv 2605.14458) averages the post-softmax attention of the query tokens; it does not
    say how heads are combined. Ours: the mean over heads.

    Parameters
    ----------
    queries : Tensor, (H, r, d)
        Queries of the rows, rotary position applied.
    keys : Tensor, (Hkv, n, d)
        Keys of the whole sequence as the cache holds them, rotary position applied. Grouped
        queries: head h reads key head `h // (H // Hkv)`.
    rows : Tensor, (r,) int64
        Place of each row in the current sequence; row i sees keys 0..rows[i].
    columns : Tensor, (m,) int64, or slice
        Places, in the same sequence, of the tokens to score.
    scaling : float
        Factor on the scores, usually d^-0.5.
    block_elements : int
        Rows go through in blocks of at most this many scores (never less than one row).
    mask : Tensor, (r, n) float32, optional
        `causal` of the rows, where the caller has it already.

    Returns
    -------
    Tensor, (m,) float32
        Softmax in float32 over the full causal row, mean over rows and heads. A column that no row
        may see scores 0.

    Raises
    ------
    ValueError
        If there is no row: a mean over nothing would order the tokens by chance.
    """
    parts = _weights(queries, keys, rows, scaling, block_elements, mask)
    received = _summed(parts, (0, 1, 2))
    return received[_beside(columns, keys)] / (queries.shape[0] * queries.shape[1])


def row_relevance(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor | slice,
    scaling: float,
    *,
    block_elements: int = BLOCK_ELEMENTS,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention that each row pays to some columns, averaged over heads.

    Arguments and errors as for `relevance`.

    Returns
    -------
    Tensor, (r, m) float32
    """
    columns = _beside(columns, keys)
    parts = [
        weights.sum(dim=(0, 1))[:, columns]
        for weights in _weights(queries, keys, rows, scaling, block_elements, mask)
    ]
    return torch.cat(parts) / queries.shape[0]


def head_relevance(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor | slice,
    scaling: float,
    *,
    block_elements: int = BLOCK_ELEMENTS,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention that each head pays to some columns, averaged over rows.

    Arguments and errors as for `relevance`.

    Returns
    -------
    Tensor, (H, m) float32
    """
    received = _summed(_weights(queries, keys, rows, scaling, block_elements, mask), (2,))
    return received.flatten(0, 1)[:, _beside(columns, keys)] / queries.shape[1]


def causal(rows: torch.Tensor, length: int) -> torch.Tensor:
    """Return what is added to the scores of rows: 0 for keys that they see, -inf for the others.

    Parameters
    ----------
    rows : Tensor, (r,) int64
        Place of each row; row i sees keys 0..rows[i].
    length : int
        Keys, n.

    Returns
    -------
    Tensor, (r, n) float32
    """
    unseen = torch.arange(length, device=rows.device) > rows[:, None]
    return torch.zeros(unseen.shape, device=rows.device).masked_fill_(unseen, -torch.inf)


def _summed(parts: Iterator[torch.Tensor], dims: tuple[int, ...]) -> torch.Tensor:
    """Return the sum of all parts over some dimensions, one of them that of the rows."""
    total = next(parts).sum(dim=dims)
    for part in parts:
        total += part.sum(dim=dims)
    return total


def _beside(columns: torch.Tensor | slice, keys: torch.Tensor) -> torch.Tensor | slice:
    """Return columns on the device of the keys."""
    return columns.to(keys.device) if isinstance(columns, torch.Tensor) else columns


def _weights(
    queries: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    scaling: float,
    block_elements: int,
    mask: torch.Tensor | None,
) -> Iterator[torch.Tensor]:
    """Yield softmax weights of blocks of rows, (Hkv, H / Hkv, rows, n) float32."""
    heads, count, width = queries.shape
    kv_heads, length, _ = keys.shape
    if count == 0:
        raise ValueError("attention needs at least one query row")
    group = heads // kv_heads
    # Stacking the heads that share keys turns grouped queries into a plain batched product: the
    # keys are never expanded.
    grouped = queries.reshape(kv_heads, group, count, width)
    transposed = keys.transpose(1, 2)
    block = max(1, block_elements // (heads * length))
    for start in range(0, count, block):
        part = grouped[:, :, start : start + block]
        if mask is None:
            row_mask = causal(rows[start : start + block].to(keys.device), length)
        else:
            row_mask = mask[start : start + block]
        scores = torch.bmm(part.reshape(kv_heads, -1, width), transposed)
        # In float32, scaled and masked at once.
        scores = torch.add(row_mask, scores.view(kv_heads, group, -1, length), alpha=scaling)
        yield scores.softmax(dim=-1)
