"""What a pruning method sees of the layer that was just run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.device_prompt import DevicePrompt, mapped
from omnidrop.engine.sequence import Block, Rows, Split, Whole
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import MethodState
from omnidrop.pruning.method import Rows as QueryRows
from omnidrop.pruning.parts.relevance import relevance, row_relevance
from omnidrop.tokens import TokenMap


@dataclass
class LayerAttention:
    """Attention of one layer from text rows to the AV tokens alive; computed when asked for.

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

    def queries(self, asking: QueryRows) -> torch.Tensor:
        """Return the prompt indices of the rows whose queries score, (r,) int64."""
        index = self.prompt.query_rows(asking)
        if asking == "all-text" and self.prompt.text_between_av and len(self.rows.av):
            # Text between AV tokens attends to none once those before it are dropped.
            index = index[index > self.rows.survivors[0]]
        return index

    def _compute(self, score: Callable[..., torch.Tensor], asking: QueryRows) -> torch.Tensor:
        index = torch.searchsorted(self.rows.alive, self.queries(asking))
        before = len(self.rows) - len(self.entered)
        queries = self.entered.select(index - before)
        return score(
            self.adapter.queries(self.layer, queries.hidden, queries.rotary),
            self.cache.keys(self.layer)[0],
            rows=index,
            columns=self.rows.av,
            scaling=self.adapter.scaling,
        )


@dataclass
class DecoderLayerView:
    """The engine's `omnidrop.pruning.method.LayerView`.

    Parameters
    ----------
    layer, layers : int
    generator : torch.Generator
    state : MethodState
    question_free : bool
        The method says that it reads nothing of the text; reading it is then an error.
    on_host : bool
        The method needs tokens and scores on the CPU; the host then waits for the device.
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
        tokens = self._attention.prompt.tokens.select(self._sequence.rows.survivors)
        return mapped(tokens, self._told)

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

    def _told(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu() if self.on_host else tensor

    def _check_text_is_read(self) -> None:
        if self.question_free:
            raise RuntimeError(
                "A method declared question-free (`question_free = True`) read the text. "
                "Remove the declaration, or choose without attention and text states."
            )
