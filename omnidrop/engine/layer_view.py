"""What a pruning method sees of the layer that was just run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.sequence import Block, Rows, Split, Whole
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import MethodState
from omnidrop.pruning.method import Rows as QueryRows
from omnidrop.pruning.parts.relevance import relevance, row_relevance
from omnidrop.tokens import TokenMap


@dataclass
class LayerAttention:
    """Attention of one layer from text rows to the AV tokens alive; computed when asked for.

    Queries come from the hidden states that entered the layer, keys from the layer's KV cache.

    Parameters
    ----------
    adapter : Adapter
    cache : KVCache
    layer : int
    entered : Block
        The block that holds the question, as it entered the layer.
    rows : Rows
        All rows alive in this layer.
    """

    adapter: Adapter
    cache: KVCache
    layer: int
    entered: Block
    rows: Rows
    _means: dict[str, torch.Tensor] = field(default_factory=dict)

    def mean(self, asking: QueryRows) -> torch.Tensor:
        """Return the mean over rows and heads, (m,) float32."""
        if asking not in self._means:
            self._means[asking] = self._compute(relevance, asking)
        return self._means[asking]

    def each(self, asking: QueryRows) -> torch.Tensor:
        """Return the mean over heads for each row, (r, m) float32."""
        return self._compute(row_relevance, asking)

    def _compute(self, score: Callable[..., torch.Tensor], asking: QueryRows) -> torch.Tensor:
        index, device = query_rows(self.rows.tokens, asking), self.entered.hidden.device
        before = len(self.rows) - len(self.entered)
        queries = self.entered.select(index - before)
        scores = score(
            self.adapter.queries(self.layer, queries.hidden, queries.rotary),
            self.cache.keys(self.layer)[0],
            rows=index.to(device),
            columns=self.rows.av.to(device),
            scaling=self.adapter.scaling,
        )
        return scores.to(self.rows.av.device)


@dataclass
class DecoderLayerView:
    """The engine's `omnidrop.pruning.method.LayerView`.

    Parameters
    ----------
    layer, layers : int
    generator : torch.Generator
    tokens : TokenMap
        The AV tokens alive.
    state : MethodState
    question_free : bool
        The method says that it reads nothing of the text; reading it is then an error.
    """

    layer: int
    layers: int
    generator: torch.Generator
    tokens: TokenMap
    state: MethodState
    question_free: bool
    _attention: LayerAttention
    _sequence: Whole | Split
    _ids: torch.Tensor

    def attention(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        return self._attention.mean(rows)

    def row_attention(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        return self._attention.each(rows)

    def hidden(self) -> torch.Tensor:
        return self._sequence.clip.states(self._sequence.rows.av)

    def text_hidden(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        question = self._sequence.blocks[-1]
        before = len(self._sequence.rows) - len(question)
        return question.states(query_rows(self._sequence.rows.tokens, rows) - before)

    def text_embeds(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        alive = self._sequence.rows.alive
        ids = self._ids[alive[query_rows(self._sequence.rows.tokens, rows)]]
        adapter = self._attention.adapter
        return adapter.embed(ids.to(adapter.device))

    def _check_text_is_read(self) -> None:
        if self.question_free:
            raise RuntimeError(
                "A method declared question-free (`question_free = True`) read the text. "
                "Remove the declaration, or choose without attention and text states."
            )


def query_rows(tokens: TokenMap, rows: QueryRows) -> torch.Tensor:
    """Return the rows of a sequence whose queries score the AV tokens.

    Parameters
    ----------
    tokens : TokenMap
        The tokens of the sequence as it is now.
    rows : {"question", "last", "all-text"}
        The user's words; the last token; or every token that is neither audio nor video and
        stands after the first AV token (rows before it attend to none).

    Returns
    -------
    Tensor, (r,) int64
        The last row if there is no such row.
    """
    last = torch.tensor([len(tokens) - 1], device=tokens.kind.device)
    if rows == "last":
        return last
    if rows == "question":
        index = torch.nonzero(tokens.question).squeeze(1)
        return index if len(index) else last
    av = torch.nonzero(tokens.av).squeeze(1)
    text = torch.nonzero(~tokens.av).squeeze(1)
    return text[text > av[0]] if len(av) else last
