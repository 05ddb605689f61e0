"""The prompt between two layers, and what a pruning method may see of it.

Rows go through a layer in one block, or in two: the clip's (all up to the last AV token), which
no question changes, and the question's after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.models.adapter import Adapter, Rotary
from omnidrop.prompt import TokenMap
from omnidrop.pruning.method import MethodState, Rows
from omnidrop.pruning.parts.relevance import relevance as relevance_of
from omnidrop.pruning.parts.relevance import row_relevance


@dataclass
class Block:
    """Rows that go through a layer together.

    Attributes
    ----------
    hidden : Tensor, (1, n, D)
        Their states.
    rotary : pair of Tensor, (1, n, head_dim)
        Cosine and sine of their positions.
    """

    hidden: torch.Tensor
    rotary: Rotary

    def __len__(self) -> int:
        return int(self.hidden.shape[1])

    def select(self, index: torch.Tensor) -> Block:
        """Return the rows at `index` ((n,) int64)."""
        index = index.to(self.hidden.device)
        cos, sin = self.rotary
        return Block(
            self.hidden.index_select(1, index),
            (cos.index_select(1, index), sin.index_select(1, index)),
        )

    def last(self) -> Block:
        """Return the last row."""
        cos, sin = self.rotary
        return Block(self.hidden[:, -1:], (cos[:, -1:], sin[:, -1:]))

    def but_last(self) -> Block:
        """Return all rows but the last."""
        cos, sin = self.rotary
        return Block(self.hidden[:, :-1], (cos[:, :-1], sin[:, :-1]))


@dataclass
class Sequence:
    """The rows that are still alive.

    Attributes
    ----------
    alive : Tensor, (n,) int64
        Prompt indices of all rows, ascending, on the CPU.
    tokens : TokenMap
        What they are.
    head : Block or None
        The clip's rows, while they go apart from the rest.
    tail : Block
        The other rows, or all. Where it is shorter than `alive` and there is no `head`, the clip's
        rows are known from an earlier question and need not go through this layer.
    """

    alive: torch.Tensor
    tokens: TokenMap
    head: Block | None
    tail: Block

    @property
    def split(self) -> int:
        """Number of rows before `tail`."""
        return len(self.alive) - len(self.tail)

    @property
    def av(self) -> torch.Tensor:
        """Places of the AV tokens, (n,) int64."""
        return torch.nonzero(self.tokens.av).squeeze(1)

    @property
    def first(self) -> Block:
        """The block that holds the AV tokens."""
        return self.tail if self.head is None else self.head

    def keep(self, index: torch.Tensor) -> None:
        """Go on with the rows at `index` ((n,) int64, ascending), all of `tail` among them."""
        split = self.split
        self.alive = self.alive[index]
        self.tokens = self.tokens.select(index)
        if not split:
            self.tail = self.tail.select(index)
        elif self.head is not None:
            self.head = self.head.select(index[index < split])

    def join(self) -> None:
        """Let all rows go together from now on."""
        if self.head is None:
            return
        one, two = self.head, self.tail
        self.head = None
        self.tail = Block(
            torch.cat([one.hidden, two.hidden], 1),
            (
                torch.cat([one.rotary[0], two.rotary[0]], 1),
                torch.cat([one.rotary[1], two.rotary[1]], 1),
            ),
        )


@dataclass
class View:
    """A `LayerView`: the layer just run, seen by a method. Attention is computed when asked for."""

    layer: int
    layers: int
    generator: torch.Generator
    tokens: TokenMap
    state: MethodState
    _adapter: Adapter
    _cache: KVCache
    _entered: Block
    _sequence: Sequence
    _av: torch.Tensor
    _ids: torch.Tensor
    blind: bool = False
    _known: dict[str, torch.Tensor] = field(default_factory=dict)

    def attention(self, rows: Rows) -> torch.Tensor:
        if rows not in self._known:
            self._known[rows] = self._scored(relevance_of, rows)
        return self._known[rows]

    def row_attention(self, rows: Rows) -> torch.Tensor:
        return self._scored(row_relevance, rows)

    def hidden(self) -> torch.Tensor:
        return _rows(self._sequence.first, self._av)

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        return _rows(self._sequence.tail, self._asking(rows) - self._sequence.split)

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        ids = self._ids[self._sequence.alive[self._asking(rows)]]
        return self._adapter.embed(ids.to(self._entered.hidden.device))

    def _asking(self, rows: Rows) -> torch.Tensor:
        if self.blind:
            raise RuntimeError("A method that says it is question-free looked at the text.")
        return query_rows(self._sequence.tokens, rows)

    def _scored(self, score: Callable[..., torch.Tensor], rows: Rows) -> torch.Tensor:
        index = self._asking(rows)
        device = self._entered.hidden.device
        asking = self._entered.select(index - (len(self._sequence.alive) - len(self._entered)))
        scores = score(
            self._adapter.queries(self.layer, asking.hidden, asking.rotary),
            self._cache.keys(self.layer)[0],
            rows=index.to(device),
            columns=self._av.to(device),
            scaling=self._adapter.scaling,
        )
        return scores.cpu()


def _rows(block: Block, index: torch.Tensor) -> torch.Tensor:
    return block.hidden[0].index_select(0, index.to(block.hidden.device))


def query_rows(tokens: TokenMap, rows: Rows) -> torch.Tensor:
    """Return which rows of a sequence ask for relevance.

    Parameters
    ----------
    tokens : TokenMap
        The sequence as it is now.
    rows : {"question", "last", "all-text"}
        The user's words; the last token; or every token that is not audio or video and comes
        after the first AV token (rows before it cannot see any).

    Returns
    -------
    Tensor, (r,) int64
    """
    last = torch.tensor([len(tokens) - 1])
    if rows == "last":
        return last
    if rows == "question":
        index = torch.nonzero(tokens.question).squeeze(1)
        return index if len(index) else last
    av = torch.nonzero(tokens.av).squeeze(1)
    text = torch.nonzero(~tokens.av).squeeze(1)
    return text[text > av[0]] if len(av) else last


def clip_end(tokens: TokenMap) -> int:
    """Return how many tokens of a prompt come before anything a question could change.

    0 where the clip's part cannot go apart: there is no AV token, or text stands between them, or
    the question before them.
    """
    av = torch.nonzero(tokens.av).squeeze(1)
    if not len(av) or int(av[-1] - av[0]) >= len(av):
        return 0
    end = int(av[-1]) + 1
    return 0 if bool(tokens.question[:end].any()) else end
