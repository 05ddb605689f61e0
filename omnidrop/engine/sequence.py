"""The prompt between two layers, and what a pruning method may see of it.

Rows go through a layer in one block, or in two: the clip's (all up to the last AV token), which
no question changes, and the question's after it.

Which rows are alive is known on the model's device alone. How many they are follows from the plan,
so nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.models.adapter import Adapter, Rotary
from omnidrop.moving import moved
from omnidrop.prompt import Prompt, TokenMap
from omnidrop.pruning.method import Rows
from omnidrop.pruning.relevance import relevance as relevance_of
from omnidrop.pruning.relevance import row_relevance


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


class Places:
    """The tokens of a prompt, on the host and on the model's device.

    Parameters
    ----------
    prompt : Prompt
    device : torch.device

    Attributes
    ----------
    ids : Tensor, (N,) int64
    positions : Tensor, (3, N) int64
    text : Tensor, (t,) int64
        Prompt indices of what is not audio or video. All three on the device.
    """

    def __init__(self, prompt: Prompt, device: torch.device) -> None:
        self._tokens, self._device = prompt.tokens, device
        self._text = torch.nonzero(~prompt.tokens.av).squeeze(1)
        self._asking: dict[Rows, torch.Tensor] = {}
        self.ids = moved(prompt.ids, device)
        self.positions = moved(prompt.positions, device)
        self.text = moved(self._text, device)

    def text_before(self, end: int) -> int:
        """Return how many tokens before `end` are text."""
        return int((self._text < end).sum())

    @cached_property
    def tokens(self) -> TokenMap:
        """What the tokens are, on the device."""
        own = self._tokens
        kind, chunk, time, grid = (
            moved(part, self._device) for part in (own.kind, own.chunk, own.time, own.grid)
        )
        return TokenMap(kind, chunk, time, grid)

    def asking(self, rows: Rows) -> torch.Tensor:
        """Return prompt indices of the text tokens that ask, (r,) int64 on the device."""
        if rows not in self._asking:
            self._asking[rows] = moved(query_rows(self._tokens, rows), self._device)
        return self._asking[rows]

    @cached_property
    def lead(self) -> int | None:
        """Text tokens before the AV tokens; None where text stands between those."""
        av = torch.nonzero(self._tokens.av).squeeze(1)
        if len(av) and int(av[-1] - av[0]) >= len(av):
            return None
        return self.text_before(int(av[0])) if len(av) else 0


@dataclass
class Sequence:
    """The rows that are still alive.

    Attributes
    ----------
    alive : Tensor, (n,) int64
        Prompt indices of all rows, ascending, on the model's device.
    av : Tensor, (m,) int64
        Places of the AV tokens in `alive`, ascending, on the device.
    head : Block or None
        The clip's rows, while they go apart from the rest.
    tail : Block
        The other rows, or all. Where it is shorter than `alive` and there is no `head`, the clip's
        rows are known from an earlier question and need not go through this layer.
    """

    alive: torch.Tensor
    av: torch.Tensor
    head: Block | None
    tail: Block

    @property
    def split(self) -> int:
        """Number of rows before `tail`."""
        return len(self.alive) - len(self.tail)

    @property
    def first(self) -> Block:
        """The block that holds the AV tokens."""
        return self.tail if self.head is None else self.head

    def keep(self, text: torch.Tensor, av: torch.Tensor, lead: int | None) -> None:
        """Go on with some of the rows.

        Parameters
        ----------
        text, av : Tensor, int64
            Places of all text tokens, and of the AV tokens that stay; ascending.
        lead : int or None
            Text tokens before the AV tokens; None where text stands between those.
        """
        split = self.split
        if lead is None:
            index = torch.cat([text, av]).sort().values
            self.av = torch.searchsorted(index, av)
        else:
            index = torch.cat([text[:lead], av, text[lead:]])
            self.av = torch.arange(lead, lead + len(av), device=av.device)
        self.alive = self.alive[index]
        if not split:
            self.tail = self.tail.select(index)
        elif self.head is not None:  # all of the tail stay, and come last
            self.head = self.head.select(index[: len(index) - len(self.tail)])

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
    """A `LayerView`: the layer just run, seen by a method. Attention is computed when asked for.

    `on_host` brings tokens and scores to the host, which waits for the device then.
    """

    layer: int
    layers: int
    generator: torch.Generator
    memo: dict[str, Any]
    on_host: bool
    _adapter: Adapter
    _cache: KVCache
    _entered: Block
    _sequence: Sequence
    _places: Places
    blind: bool = False
    _known: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> TokenMap:
        tokens = self._places.tokens.select(self._sequence.alive[self._sequence.av])
        if not self.on_host:
            return tokens
        return TokenMap(*(x.cpu() for x in (tokens.kind, tokens.chunk, tokens.time, tokens.grid)))

    def attention(self, rows: Rows) -> torch.Tensor:
        return self._told(self.received(rows))

    def received(self, rows: Rows) -> torch.Tensor:
        """Return the same as `attention`, always on the device."""
        if rows not in self._known:
            self._known[rows] = self._scored(relevance_of, rows)
        return self._known[rows]

    def row_attention(self, rows: Rows) -> torch.Tensor:
        return self._told(self._scored(row_relevance, rows))

    def hidden(self) -> torch.Tensor:
        return self._sequence.first.hidden[0].index_select(0, self._sequence.av)

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        places = self._asking(rows) - self._sequence.split
        return self._sequence.tail.hidden[0].index_select(0, places)

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        return self._adapter.embed(self._places.ids[self._sequence.alive[self._asking(rows)]])

    def _told(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.cpu() if self.on_host else scores

    def _asking(self, rows: Rows) -> torch.Tensor:
        """Return the places of the rows that ask."""
        if self.blind:
            raise RuntimeError("A method that says it is question-free looked at the text.")
        alive, asking = self._sequence.alive, self._places.asking(rows)
        if rows == "all-text" and self._places.lead is None and len(self._sequence.av):
            # Text between AV tokens sees none of them once those before it are gone.
            asking = asking[asking > alive[self._sequence.av[0]]]
        return torch.searchsorted(alive, asking)

    def _scored(self, score: Callable[..., torch.Tensor], rows: Rows) -> torch.Tensor:
        index = self._asking(rows)
        asking = self._entered.select(index - (len(self._sequence.alive) - len(self._entered)))
        return score(
            self._adapter.queries(self.layer, asking.hidden, asking.rotary),
            self._cache.keys(self.layer)[0],
            rows=index,
            columns=self._sequence.av,
            scaling=self._adapter.scaling,
        )


def query_rows(tokens: TokenMap, rows: Rows) -> torch.Tensor:
    """Return which rows of a sequence ask for relevance.

    Parameters
    ----------
    tokens : TokenMap
        Of the whole prompt.
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
