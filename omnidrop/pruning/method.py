"""What a pruning method is: what it plans, chooses at entry, and chooses after a layer.

A method is a frozen dataclass whose fields are its hyper-parameters. It sees tensors and a
TokenMap, never a model. The engine asks it three things:

1. `plan(tokens, layers)` — how many audio and video (AV) tokens enter each layer;
2. `enter(view, plan)` — which AV tokens enter layer 0, and which of them carry a mean of several;
3. `keep(view, count)` — after a layer, which of the surviving AV tokens enter the next.

To add a method: write one file with a subclass of `LayerMethod` (it chooses inside the layers) or
`EntryMethod` (before them only), and add one line to `omnidrop/pruning/registry.py`, or an entry
point to a package of your own (`docs/write-a-method.md`).
`omnidrop.testing.check_method` then checks all that must hold of any method.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning import checks
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

Rows = Literal["question", "last", "all-text"]
CachePolicy = Literal["own", "cut"]

#: Rows of a mix computed at once: bounds the float32 copies.
_BLOCK = 512


class Part(StrEnum):
    """What a method consists of; a composition takes parts from different methods."""

    ENTRY = "entry"  #: Which tokens enter layer 0.
    LAYERS = "layers"  #: Which survivors of a layer enter the next one.
    SCHEDULE = "schedule"  #: How many tokens enter each layer.


class Need(StrEnum):
    """What a method may ask for that costs extra; named in `Method.wants`."""

    VIDEO_ATTENTION = "video attention"
    #: Embeddings of the question, for what enters: it then differs from question to question, so
    #: that no layer of the clip is reused for another one.
    QUESTION = "question embeddings"
    #: Embeddings and positions of the whole prompt, text included; the same holds.
    PROMPT = "whole prompt"


#: What is another for every question: a method that asks for any of these is not question-free.
OF_THE_QUESTION = frozenset({Need.QUESTION, Need.PROMPT})


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
        Models with equal fingerprints embed audio and video alike.
    folder : Path or None
        Where the model is.
    """

    name: str
    fingerprint: str | None = None
    folder: Path | None = None


@dataclass
class MethodState:
    """What a method remembers during one prefill, from `Method.start` to its last `keep`.

    The base remembers nothing. A method that needs memory defines a dataclass derived from it.
    Plain values may change from layer to layer; a tensor is replaced, never changed in place, since
    a state and its forks share tensors.
    """

    def fork(self) -> Self:
        """Return a copy that may change without changing this one; tensors are shared."""
        shared = {id(tensor): tensor for tensor in self.tensors()}
        return copy.deepcopy(self, dict(shared))

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return every tensor that is held, for counting bytes."""
        return tuple(_tensors(vars(self)))


def _tensors(held: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value, and in the containers and dataclasses it is made of."""
    if isinstance(held, torch.Tensor):
        yield held
    elif isinstance(held, dict):
        yield from _tensors(tuple(held.values()))
    elif isinstance(held, (list, tuple)):
        for part in held:
            yield from _tensors(part)
    elif is_dataclass(held) and not isinstance(held, type):
        yield from _tensors(vars(held))


@dataclass(frozen=True)
class WholePrompt:
    """Every row of the prompt as it would enter layer 0.

    Attributes
    ----------
    embeds : Tensor, (P, D)
        Embeddings in prompt order, on the model's device and in its dtype.
    positions : Tensor, (3, P) int64 or float32
        Time, row and column, as the model's rotary embedding takes them; on the same device.
    av : Tensor, (N,) int64
        Which rows are the view's AV tokens, ascending; on the same device.
    text : Tensor, (P − N,) int64
        Which rows are all others, ascending; on the same device.
    """

    embeds: torch.Tensor
    positions: torch.Tensor
    av: torch.Tensor
    text: torch.Tensor


@dataclass(frozen=True)
class EntryView:
    """What a method sees before the LLM.

    Attributes
    ----------
    tokens : TokenMap
        The N AV tokens, in prompt order (no text).
    embeds : Tensor, (N, D)
        Their embeddings as the encoders gave them.
    audio_attention : Tensor or None, (Na,) float32
        Attention each audio token received in the last audio-encoder layer, in order of time.
    generator : torch.Generator
        Seeded CPU generator, for methods that draw.
    video_attention : Tensor or None, (Nv,) float32
        Attention each video token received in the last vision-encoder layer, in order of time,
        rows, columns; there only for a method whose `wants` names it.
    state : MethodState
        What `Method.start` returned; `keep` finds it again in its view.
    backbone : Backbone or None
        The model, for a method with weights trained for it.
    question_embeds : Tensor or None, (r, D)
        Embeddings with which the question enters layer 0, like `embeds`; those of the last token of
        the prompt where there is no question. There only for a method whose `wants` names it.
    phrase_embeds : tuple of Tensor, (r, D) each
        Embeddings of the method's `phrases`, like `embeds`.
    prompt : WholePrompt or None
        There only for a method whose `wants` names it.
    """

    tokens: TokenMap
    embeds: torch.Tensor
    audio_attention: torch.Tensor | None
    generator: torch.Generator
    video_attention: torch.Tensor | None = None
    state: MethodState = field(default_factory=MethodState)
    backbone: Backbone | None = None
    question_embeds: torch.Tensor | None = None
    phrase_embeds: tuple[torch.Tensor, ...] = ()
    prompt: WholePrompt | None = None


@dataclass(frozen=True)
class Mix:
    """Merging: some kept tokens carry a weighted mean of several tokens.

    Three columns of one table; row i says that token `kept[i]` takes in token `source[i]` with
    weight `weight[i]`. A kept token that is not named carries its own row. One that is named
    carries the mean of its sources only, so it lists itself where its own row counts too.

    Attributes
    ----------
    kept : Tensor, (m,) int64
        Places in `Entry.keep`, 0 to k − 1.
    source : Tensor, (m,) int64
        Indices into the AV tokens of the view that the method was given.
    weight : Tensor, (m,) float32
        Above 0. Only proportions count: the sum is divided by the weights' sum.
    """

    kept: torch.Tensor
    source: torch.Tensor
    weight: torch.Tensor

    def apply(self, rows: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Return what the kept tokens carry, for any tensor with one row per AV token.

        Sums are taken in float32, in the order of the table, and rounded once at the end.

        Parameters
        ----------
        rows : Tensor, (n, D)
            One row per AV token of the view.
        keep : Tensor, (k,) int64
            `Entry.keep`.

        Returns
        -------
        Tensor, (k, D)
            On the device and in the dtype of `rows`.
        """
        device = rows.device
        if self.kept.device.type == "cpu":
            used, place = (
                to_device(part, device) for part in torch.unique(self.kept, return_inverse=True)
            )
        else:  # only the device knows which are named, so all are computed
            used, place = torch.arange(len(keep), device=device), self.kept
        source, weight = to_device(self.source, device), to_device(self.weight, device)
        sums = torch.zeros(len(used), rows.shape[1], device=device)
        total = torch.zeros(len(used), device=device).index_add_(0, place, weight)
        for into, index, share in zip(
            place.split(_BLOCK), source.split(_BLOCK), weight.split(_BLOCK), strict=True
        ):
            sums.index_add_(0, into, rows.index_select(0, index).float() * share[:, None])
        out = rows.index_select(0, to_device(keep, device))
        means = torch.where(total[:, None] > 0, (sums / total[:, None]).to(out), out[used])
        return out.index_copy_(0, used, means)


@dataclass(frozen=True)
class Entry:
    """Which AV tokens stay, and what they carry where that is not their own.

    Attributes
    ----------
    keep : Tensor, (k,) int64
        Ascending indices into the view's AV tokens.
    mix : Mix or None
        Which of them carry a mean of several tokens; None where all carry their own.
    states : Tensor or None, (k, D)
        What they are in the next layer, where the method computes that itself; not together with
        `mix`. Whatever else a token carries stays its own (`take`).
    text : Tensor or None, (P − N, D)
        What the rows of `WholePrompt.text` are in layer 0, where the method computes that; at entry
        only, by a method whose `wants` names the whole prompt.
    """

    keep: torch.Tensor
    mix: Mix | None = None
    states: torch.Tensor | None = None
    text: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.states is not None and self.mix is not None:
            raise ValueError("An entry with states says already what its tokens carry, so no mix.")

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the kept tokens have of any table with a row per token, (n, D) → (k, D).

        See `Mix.apply`. For the states that go on to the next layer, see `carry`.
        """
        if self.mix is not None:
            return self.mix.apply(rows, self.keep)
        return rows.index_select(0, self.keep.to(rows.device))

    def carry(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the states with which the kept tokens go on, given their own, (n, D) → (k, D)."""
        return self.take(rows) if self.states is None else self.states.to(rows)


class LayerView(Protocol):
    """What a method sees after a layer; costs nothing until something is asked of it."""

    layer: int
    layers: int
    generator: torch.Generator
    state: MethodState

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

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        """Embeddings with which text rows entered layer 0, (r, D)."""
        ...

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        """Hidden states of text rows that left this layer, (r, D)."""
        ...


@dataclass(frozen=True)
class Method:
    """Keeps every audio and video token.

    The base of every method. Derive from `LayerMethod` what chooses inside the layers, and from
    `EntryMethod` what chooses before them only.

    Parameters
    ----------
    budget : float
        Mean over the layers of (AV tokens entering the layer) / N, in (0, 1].
    """

    name: ClassVar[str] = "none"
    #: What the method needs that costs extra.
    wants: ClassVar[frozenset[str]] = frozenset()
    #: Texts whose embeddings `enter` needs, in `EntryView.phrase_embeds`.
    phrases: ClassVar[tuple[str, ...]] = ()
    #: Nothing is asked of the text, so every question about a clip finds the same tokens chosen,
    #: and the clip's keys and values are computed only once.
    question_free: ClassVar[bool] = False
    #: It draws at random, so that results differ from seed to seed.
    draws: ClassVar[bool] = False
    #: The schedule lets every token in; a composition may then let fewer in.
    enters_all: ClassVar[bool] = False
    #: Setting that fixes which share of the tokens enters layer 0, where there is one.
    entry_field: ClassVar[str | None] = None
    #: `keep` counts on the schedule that the method planned itself.
    needs_own_schedule: ClassVar[bool] = False
    #: Settings that act in some of the parts only; the others act in all of them.
    used_by: ClassVar[Mapping[str, frozenset[Part]]] = {}
    #: Settings of earlier versions: name → value → how to say it now.
    former: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    #: Layers of the decoder's shape that `enter` itself runs over the whole prompt, every row
    #: attending to every other one; for counting operations.
    own_layers: ClassVar[int] = 0
    #: Settings that name files or folders, which who serves others must not let them choose.
    files: ClassVar[frozenset[str]] = frozenset()
    #: Why `keep` needs tokens and scores on the CPU; "" where it works on any device and the number
    #: of tokens it returns is the one asked for, so that the host need not wait for the device.
    #: An adaptive plan always brings them to the CPU.
    needs_host: ClassVar[str] = "its own choice on the CPU"

    budget: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.budget, (int, float)) or not 0.0 < self.budget <= 1.0:
            raise UsageError(
                f"A budget of {self.budget} cannot be kept.",
                hint="Give a share of the audio and video tokens above 0 and up to 1, like 0.3.",
            )
        checks.fields(self)

    @property
    def cache(self) -> CachePolicy:
        """What happens to the KV caches of earlier layers; a setting of a `LayerMethod`."""
        return "own"

    @property
    def label(self) -> str:
        """What a run of this method is called in tables and figures: "omnidrop 0.2"."""
        return f"{self.name} {self.budget:g}"

    def settings(self) -> dict[str, Any]:
        """Return the hyper-parameters as plain values, for the report."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries, by setting, in ascending order."""
        return {}

    def parts(self) -> frozenset[Part]:
        """Return what a composition can take from this method: what it does itself."""
        own = {Part.ENTRY: "enter", Part.LAYERS: "keep", Part.SCHEDULE: "plan"}
        return frozenset(p for p, f in own.items() if getattr(type(self), f) is not _BASE[f])

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

    def check_model(self, backbone: Backbone, width: int) -> None:
        """Check that there is what the method needs to have been trained for a model.

        `enter` raises the same error; asked here, before a clip is read, it costs nothing.

        Parameters
        ----------
        backbone : Backbone
        width : int
            Of the model's embeddings.

        Raises
        ------
        ModelError
            If there is none for this model; says how to train it.
        """

    def start(self, plan: Plan) -> MethodState:
        """Return what the method remembers during one prefill; asked before `enter`."""
        return MethodState()

    def watch(self, view: EntryView) -> None:
        """Remember, in `view.state`, what `keep` will need of the embeddings; by default nothing.

        `enter` calls it. In a composition, where another method chooses what enters, it is called
        in place of `enter`.
        """

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose the `plan.counts[0]` tokens that enter layer 0."""
        self.watch(view)
        return Entry(torch.arange(len(view.tokens)))

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Choose which `count` survivors of `view` enter the next layer.

        Returns
        -------
        Tensor, (count,) int64, or Entry
            Ascending indices into `view.tokens`; an `Entry` where states are replaced too.
        """
        raise NotImplementedError


#: What a method inherits where it does not do a part itself.
_BASE = {name: getattr(Method, name) for name in ("plan", "enter", "keep")}


@dataclass(frozen=True)
class LayerMethod(Method):
    """Base of methods that choose inside the layers.

    Parameters
    ----------
    cache : {"own", "cut"}, default "own"
        What happens to the KV caches of the layers already passed when tokens are dropped: each
        layer keeps its own, or they are cut to the survivors.
    """

    cache: CachePolicy = "own"
