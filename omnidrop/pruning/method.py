"""What a pruning method is: what it plans, what it does at entry, what it does after a layer.

A method is a frozen dataclass whose fields are its hyper-parameters. It sees tensors and a
TokenMap, never a model. The engine asks it three things:

1. `plan(tokens, layers)` — how many audio and video (AV) tokens enter each layer;
2. `enter(view)` — which AV tokens enter layer 0, with replaced embeddings where it merges;
3. `keep(view, count)` — after a layer, which of the surviving AV tokens go on to the next.

To add a method: write one file with a subclass of `Method`, and add one line to
`omnidrop/pruning/registry.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.prompt import TokenMap

Rows = Literal["question", "last", "all-text"]
CachePolicy = Literal["own", "cut"]


@dataclass(frozen=True)
class Plan:
    """How many AV tokens enter each layer.

    Attributes
    ----------
    total : int
        AV tokens before any reduction, N.
    counts : tuple of int, length L
        AV tokens entering each layer; never rises.
    settings : dict
        What the solver chose (p_final, entry ratio, …), for the report.
    adaptive : bool
        The method decides as it goes: `keep` is asked after every layer but the last, and any
        number may survive. `counts` is then what is expected.
    """

    total: int
    counts: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    adaptive: bool = False

    @property
    def realised(self) -> float:
        """Mean over layers of the share of AV tokens entering; 1.0 for a clip without AV tokens."""
        if not self.total:
            return 1.0
        return sum(self.counts) / (len(self.counts) * self.total)


@dataclass(frozen=True)
class Backbone:
    """Whose embeddings a method sees, for methods with weights of their own.

    Attributes
    ----------
    name : str
        Of the model.
    fingerprint : str or None
        Models with equal fingerprints embed sound and pictures alike.
    folder : Path or None
        Where the model is.
    """

    name: str
    fingerprint: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class EntryView:
    """What a method sees before the LLM.

    Attributes
    ----------
    tokens : TokenMap
        The N AV tokens, in prompt order (no text).
    embeds : Tensor, (N, D)
        Their embeddings as the towers gave them.
    audio_attention : Tensor or None, (Na,) float32
        Attention each audio token received in the last audio-encoder layer, in order of time.
    generator : torch.Generator
        Seeded CPU generator, for methods that draw.
    video_attention : Tensor or None, (Nv,) float32
        Attention each video token received in the last vision-encoder layer, in order of time,
        rows, columns; there only for a method whose `wants` names it.
    memo : dict
        Whatever the method wants to remember; lives for one prefill and is shared with `keep`.
    backbone : Backbone or None
        The model, for a method with weights trained for it.
    """

    tokens: TokenMap
    embeds: torch.Tensor
    audio_attention: torch.Tensor | None
    generator: torch.Generator
    video_attention: torch.Tensor | None = None
    memo: dict[str, Any] = field(default_factory=dict)
    backbone: Backbone | None = None


@dataclass(frozen=True)
class Entry:
    """Which AV tokens go on, and what they carry where that is not their own.

    Attributes
    ----------
    keep : Tensor, (n,) int64
        Ascending indices into the view's AV tokens.
    embeds : Tensor or None, (n, D)
        States to use instead of the kept tokens' own (merging); None keeps them.
    """

    keep: torch.Tensor
    embeds: torch.Tensor | None = None


class LayerView(Protocol):
    """What a method sees after a layer; costs nothing until something is asked of it."""

    layer: int
    layers: int
    generator: torch.Generator
    memo: dict[str, Any]

    @property
    def tokens(self) -> TokenMap:
        """The surviving AV tokens; on the model's device, unless `Method.needs_host` says why."""
        ...

    def attention(self, rows: Rows) -> torch.Tensor:
        """Post-softmax attention of this layer from text rows to each surviving AV token.

        Returns
        -------
        Tensor, (n,) float32
            Mean over rows and heads, in the order of `tokens`.
        """
        ...

    def row_attention(self, rows: Rows) -> torch.Tensor:
        """The same attention, row by row.

        Returns
        -------
        Tensor, (r, n) float32
            Mean over heads; rows in the order of the prompt.
        """
        ...

    def hidden(self) -> torch.Tensor:
        """Hidden states of the surviving AV tokens that left this layer, (n, D)."""
        ...

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        """Hidden states of text rows that left this layer, (r, D)."""
        ...

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        """Embeddings with which text rows entered layer 0, (r, D)."""
        ...


@dataclass(frozen=True)
class Method:
    """Base of every method; by itself it keeps everything.

    Parameters
    ----------
    budget : float
        Mean over the layers of (AV tokens entering the layer) / N, in (0, 1].
    cache : {"own", "cut"}
        What happens to the KV caches of the layers already passed when tokens are dropped:
        keep each layer's own, or cut them to the survivors.
    """

    name: ClassVar[str] = "none"
    #: What the method needs that costs extra: "video attention".
    wants: ClassVar[frozenset[str]] = frozenset()
    #: `keep` asks nothing of the text (no attention, no `text_hidden`): every question about a clip
    #: finds the same tokens chosen, so the clip's way through the layers is gone only once.
    question_free: ClassVar[bool] = False
    #: Why `keep` needs tokens and scores on the CPU; "" where it works on any device and the number
    #: of tokens it returns is the one asked for, so that the host need not wait for the device.
    #: An adaptive plan always brings them to the CPU.
    needs_host: ClassVar[str] = "its own choice on the CPU"

    budget: float = 1.0
    cache: CachePolicy = "own"

    def __post_init__(self) -> None:
        if not isinstance(self.budget, (int, float)) or not 0.0 < self.budget <= 1.0:
            raise UsageError(
                f"A budget of {self.budget} cannot be kept.",
                hint="Give a share of the audio and video tokens above 0 and up to 1, like 0.3.",
            )
        if self.cache not in ("own", "cut"):
            raise UsageError(f"Unknown cache policy {self.cache!r}.", hint="Use 'own' or 'cut'.")

    def settings(self) -> dict[str, Any]:
        """Return the hyper-parameters as plain values, for the report."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def tunable(cls) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries, by field, neighbours side by side."""
        return {}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Decide how many AV tokens enter each of `layers` layers.

        Parameters
        ----------
        tokens : TokenMap
            The N AV tokens in prompt order.
        layers : int
            Decoder layers of the model, L.

        Raises
        ------
        BudgetError
            If the budget cannot be reached within ±0.01; names the reachable range.
        """
        if self.budget < 0.99:  # keeping everything is within ±0.01 of no lower budget
            raise BudgetError(
                f"Method {self.name!r} keeps every token, a budget of 1, not {self.budget:g}.",
                reachable=(1.0, 1.0),
                hint="Leave the budget out, or choose a method that drops.",
            )
        return Plan(len(tokens), (len(tokens),) * layers)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose the `plan.counts[0]` tokens that enter layer 0."""
        return Entry(torch.arange(len(view.tokens)))

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Choose which `count` survivors of `view` enter the next layer.

        Returns
        -------
        Tensor, (count,) int64, or Entry
            Ascending indices into `view.tokens`; an `Entry` where states are replaced too.
        """
        raise NotImplementedError
