"""What a pruning method can read about the layer that just ran: attention, states, tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.device_prompt import DevicePrompt
from omnidrop.engine.sequence import Block, Rows, Split, Whole
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import MethodState
from omnidrop.pruning.method import Rows as QueryRows
from omnidrop.pruning.parts.relevance import (
    BLOCK_ELEMENTS,
    head_relevance,
    relevance,
    row_relevance,
)
from omnidrop.tokens import TokenMap


@dataclass
class LayerAttention:
    """Attention of one layer from text rows to the AV tokens alive; computed on demand.

    Queries come from the hidden states that entered the layer, keys from the layer's KV cache. All
    results are on the model's device.

    Parameters
    ----------
    adapter : Adapter
    cache : KVCache
    layer : int
    prompt : DevicePrompt
    entered : Block
        The block that holds the question, as it entered the layer.
    rows : Rows
        All rows alive in this layer.
    """

    adapter: Adapter
    cache: KVCache
    layer: int
    prompt: DevicePrompt
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

    def heads(self, asking: QueryRows) -> torch.Tensor:
        """Return the mean over rows for each head, (H, m) float32."""
        return self._compute(head_relevance, asking)

    def heads_of_row(self, row: int) -> torch.Tensor:
        """Return the attention of each head of one prompt row after the clip, (H, m) float32."""
        back = len(self.prompt) - row
        at = len(self.entered) - back
        rows = torch.tensor([len(self.rows) - back])
        return self._scores(head_relevance, self.entered.run(at, at + 1), rows)

    def queries(self, asking: QueryRows) -> torch.Tensor:
        """Return the prompt indices of the rows whose queries score, (r,) int64."""
        index = self.prompt.query_rows(asking)
        if asking == "all-text" and self.prompt.text_between_av and len(self.rows.av):
            # Text between AV tokens attends to none once those before it are dropped.
            index = index[index > self.rows.survivors[0]]
        return index

    def _compute(self, score: Callable[..., torch.Tensor], asking: QueryRows) -> torch.Tensor:
        run, back = self.prompt.query_run(asking), 0
        if run is not None:
            back = len(self.prompt) - run.start  # as far from the end as in the prompt
            elements = len(run) * len(self.rows) * self.adapter.info.text.heads
            if elements <= BLOCK_ELEMENTS and back <= len(self.entered):
                return self._compute_run(score, asking, len(self.entered) - back, len(run))
        index = torch.searchsorted(self.rows.alive, self.queries(asking))
        before = len(self.rows) - len(self.entered)
        return self._scores(score, self.entered.select(index - before), index)

    def _compute_run(
        self, score: Callable[..., torch.Tensor], asking: QueryRows, start: int, count: int
    ) -> torch.Tensor:
        """Score by `count` rows of the block, one run from `start`: few operations on a device."""
        rows = self.prompt.query_rows(asking)  # only their number counts beside a mask
        mask = self.prompt.causal_mask(asking, len(self.rows))
        return self._scores(score, self.entered.run(start, start + count), rows, mask)

    def _scores(
        self,
        score: Callable[..., torch.Tensor],
        asking: Block,
        rows: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score the AV tokens by some rows of the block, which are `rows` of the sequence."""
        return score(
            self.adapter.queries(self.layer, asking.hidden, asking.rotary),
            self.cache.keys(self.layer)[0],
            rows=rows,
            columns=self.rows.columns,
            scaling=self.adapter.scaling,
            mask=mask,
        )


class _Survivors(TokenMap):
    """Some tokens of a map; each field is gathered when it is first read.

    Parameters
    ----------
    tokens : TokenMap
    index : Tensor, (n,) int64
    on_host : bool
        Whether the fields are brought to the CPU.
    """

    _tokens: TokenMap
    _index: torch.Tensor
    _on_host: bool

    def __init__(self, tokens: TokenMap, index: torch.Tensor, on_host: bool) -> None:
        self.__dict__.update(_tokens=tokens, _index=index, _on_host=on_host)

    def __getattr__(self, name: str) -> torch.Tensor:
        if name not in TokenMap.__dataclass_fields__:
            raise AttributeError(name)
        made: torch.Tensor = getattr(self._tokens, name).index_select(0, self._index)
        self.__dict__[name] = made = made.cpu() if self._on_host else made
        return made

    def __len__(self) -> int:
        return len(self._index)


@dataclass
class DecoderLayerView:
    """The engine's `omnidrop.pruning.method.LayerView`.

    Parameters
    ----------
    layer, layers : int
    generator : torch.Generator
    state : MethodState
    question_free : bool
        The method declares that it does not read the text; reading it is then an error.
    on_host : bool
        The method needs tokens and scores on the CPU; reading them then synchronises.
    """

    layer: int
    layers: int
    generator: torch.Generator
    state: MethodState
    question_free: bool
    on_host: bool
    _attention: LayerAttention
    _sequence: Whole | Split

    @cached_property
    def tokens(self) -> TokenMap:
        rows = self._sequence.rows
        return _Survivors(self._attention.prompt.tokens, rows.survivors, self.on_host)

    def attention(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        return self._told(self._attention.mean(rows))

    def row_attention(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        return self._told(self._attention.each(rows))

    def hidden(self) -> torch.Tensor:
        return self._sequence.clip.states(self._sequence.rows.av)

    def text_embeds(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        attention = self._attention
        return attention.adapter.embed(attention.prompt.ids[attention.queries(rows)])

    def text_hidden(self, rows: QueryRows) -> torch.Tensor:
        self._check_text_is_read()
        index = torch.searchsorted(self._sequence.rows.alive, self._attention.queries(rows))
        return self._sequence.join().block.states(index)

    def _told(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu() if self.on_host else tensor

    def _check_text_is_read(self) -> None:
        if self.question_free:
            raise RuntimeError(
                "A method declared question-free (`question_free = True`) read the text. "
                "Remove the declaration, or choose without attention and text states."
            )
