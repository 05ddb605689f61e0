"""Checks a device's results: tokens and logits against transformers, kept tokens against the CPU.

    tokens_equal        float32: greedy answers, token by token
    distances           16 bits: how far logits are from a float32 run's, ours and theirs
    compare_choices     pruned: what is kept in every layer, here and on another device

Nothing here needs a GPU: on the CPU the same functions compare the CPU with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch

from benchmarks.gpu_parts import peer
from omnidrop.engine.decode import GenerateOptions, step
from omnidrop.engine.device_prompt import mapped
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled
from omnidrop.pruning.method import (
    Entry,
    EntryView,
    LayerMethod,
    LayerView,
    Method,
    MethodState,
    Mix,
    Plan,
    Rows,
    WholePrompt,
)
from omnidrop.tokens import TokenMap

QUESTION = "What instrument plays first?"

#: Largest allowed ratio of our distance to that of transformers.
ALLOWED = 1.1


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products in full float32, without TF32."""
    products, convolutions = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions


def greedy(model: Model, features: Features, new: int, method: Method | None = None) -> list[int]:
    """Return the first tokens of an answer."""
    options = GenerateOptions(max_new_tokens=new)
    with model.features(features) as session:
        answer = session.ask(QUESTION, method=method or Method(), options=options, reuse=False)
    return list(answer.token_ids)


def tokens_equal(model: Model, thinker: Any, features: Features, new: int) -> tuple[int, int]:
    """Compare greedy answers in float32.

    Parameters
    ----------
    model : Model
        OmniDrop's; it runs unpruned.
    thinker : Module
        Transformers' with the same weights.
    features : Features
    new : int
        Tokens to generate.

    Returns
    -------
    equal : int
        Tokens before the first that differs.
    made : int
        Tokens compared.
    """
    with full_float32():
        ours = greedy(model, features, new)
        ids = peer.prompt_ids(model, features, QUESTION)
        theirs = peer.generate(thinker, ids, features, new).ids
    made = min(len(ours), len(theirs))
    differ = (i for i in range(made) if ours[i] != theirs[i])
    return next(differ, made), made


def forced_logits(model: Model, features: Features, forced: list[int]) -> torch.Tensor:
    """Return OmniDrop's unpruned logits for the forced tokens, (len(forced), V) float32."""
    seen: list[Prefilled] = []
    with model.features(features) as session:
        session.ask(
            QUESTION,
            method=Method(),
            options=GenerateOptions(max_new_tokens=1),
            on_prefill=seen.append,
            reuse=False,
        )
    (prefilled,) = seen
    rows = [prefilled.logits]
    for number, token in enumerate(forced[:-1]):
        position = prefilled.next_position + number
        rows.append(step(model.adapter, prefilled.cache, [token], position)[-1])
    return torch.stack([row.float() for row in rows])


@dataclass(frozen=True)
class Reference:
    """A float32 run of transformers.

    Attributes
    ----------
    ids : list of int
        Its greedy answer.
    logits : Tensor, (n, V) float32
        Logits that each token was selected from.
    """

    ids: list[int]
    logits: torch.Tensor

    @classmethod
    def of(cls, model: Model, thinker: Any, features: Features, new: int) -> Reference:
        """Run it; `model` only provides the prompt."""
        with full_float32():
            ids = peer.prompt_ids(model, features, QUESTION)
            said = peer.generate(thinker, ids, features, new, logits=True)
        assert said.logits is not None
        return cls(said.ids, said.logits)


@dataclass(frozen=True)
class Distances:
    """Distance of logits from a float32 run, relative to the norm of that run's logits.

    Attributes
    ----------
    ours, theirs : float
        Distance of OmniDrop and of transformers in the same dtype.
    """

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Our distance divided by theirs."""
        return self.ours / self.theirs


def distances(model: Model, thinker: Any, cases: list[tuple[Features, Reference]]) -> Distances:
    """Compare both with float32 runs on the same forced tokens.

    Parameters
    ----------
    model : Model
        OmniDrop's in 16 bits.
    thinker : Module
        Transformers' in the same dtype with the same weights.
    cases : list of (Features, Reference)
    """
    ours = theirs = norm = 0.0
    for features, reference in cases:
        ids = peer.prompt_ids(model, features, QUESTION)
        said = peer.generate(
            thinker, ids, features, len(reference.ids), forced=reference.ids, logits=True
        )
        assert said.logits is not None
        assert said.ids == reference.ids
        expected = reference.logits.to(said.logits.device)
        ours += float((forced_logits(model, features, reference.ids) - expected).square().sum())
        theirs += float((said.logits - expected).square().sum())
        norm += float(expected.square().sum())
    return Distances((ours / norm) ** 0.5, (theirs / norm) ** 0.5)


@dataclass
class Call:
    """One call of a method: its inputs and its selection.

    Attributes
    ----------
    layer : int
        -1 at entry.
    replayed : Tensor, (n,) int64
        Its selection when run on the CPU with the same inputs.
    seen : dict of Tensor
        The inputs that it read, on the CPU.
    entry : Entry
        All that it returned, on the CPU: merges and states of its own included.
    """

    layer: int
    replayed: torch.Tensor
    seen: dict[str, torch.Tensor]
    entry: Entry

    @property
    def kept(self) -> torch.Tensor:
        """The method's selection, on the CPU, even if a script replaced it, (n,) int64."""
        return self.entry.keep


class Recorded:
    """A `LayerView` that records what is read from another view, or replays such a record."""

    def __init__(
        self, view: LayerView, state: MethodState, notes: dict[str, torch.Tensor] | None = None
    ) -> None:
        self.layer, self.layers = view.layer, view.layers
        self.generator, self.state = view.generator, state
        self.tokens: TokenMap = view.tokens if notes is None else _on_cpu(view.tokens)
        self._view = view
        self._replaying = notes is not None
        self.seen: dict[str, torch.Tensor] = {} if notes is None else notes

    def _look(self, what: str, *rows: Rows) -> torch.Tensor:
        key = " ".join((what, *rows))
        if self._replaying:
            return self.seen[key].clone()
        found: torch.Tensor = getattr(self._view, what)(*rows)
        self.seen[key] = found.detach().cpu().clone()
        return found

    def attention(self, rows: Rows) -> torch.Tensor:
        return self._look("attention", rows)

    def row_attention(self, rows: Rows) -> torch.Tensor:
        return self._look("row_attention", rows)

    def hidden(self) -> torch.Tensor:
        return self._look("hidden")

    def text_embeds(self, rows: Rows) -> torch.Tensor:
        return self._look("text_embeds", rows)


class Recorder(LayerMethod):
    """Records the selections of a method and, if a script is given, replaces them by the script's.

    So two devices are compared layer by layer from the same tokens, and one tie does not make all
    later layers differ.

    Parameters
    ----------
    inner : Method
        The method that selects.
    script : list of Call, optional
        Record of another run, whose selections are used instead.
    """

    name = "recorder"

    def __init__(self, inner: Method, script: list[Call] | None = None) -> None:
        cache = inner.cache if isinstance(inner, LayerMethod) else "own"
        super().__init__(budget=inner.budget, cache=cache)
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "script", script)
        object.__setattr__(self, "calls", [])
        object.__setattr__(self, "wants", inner.wants)
        object.__setattr__(self, "phrases", inner.phrases)
        object.__setattr__(self, "question_free", inner.question_free)
        object.__setattr__(self, "needs_host", inner.needs_host)

    inner: Method
    script: list[Call] | None
    calls: list[Call]

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Plan as the inner method does."""
        return self.inner.plan(tokens, layers)

    def start(self, plan: Plan) -> MethodState:
        """Return the inner method's state."""
        return self.inner.start(plan)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """As `keep`, at entry."""
        seen = {
            name: value.detach().cpu().clone()
            for name in ("embeds", "audio_attention", "video_attention", "question_embeds")
            if (value := getattr(view, name)) is not None
        }
        state = view.generator.get_state()
        on_cpu = replace(
            view,
            generator=torch.Generator(),
            state=view.state.fork(),
            phrase_embeds=tuple(phrase.cpu() for phrase in view.phrase_embeds),
            prompt=None if view.prompt is None else _moved(view.prompt, "cpu"),
            **seen,
        )
        on_cpu.generator.set_state(state)
        entry = self.inner.enter(view, plan)
        replayed = self.inner.enter(on_cpu, plan).keep
        return self._scripted(entry, -1, replayed, seen)

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Select, record, select again on the CPU from the same inputs; return the script's."""
        before, state = view.state.fork(), view.generator.get_state()
        seen = Recorded(view, view.state)
        chosen = self.inner.keep(seen, count)
        entry = chosen if isinstance(chosen, Entry) else Entry(chosen)
        replay = Recorded(view, before, seen.seen)
        replay.generator = torch.Generator()
        replay.generator.set_state(state)
        again = self.inner.keep(replay, count)
        replayed = again.keep if isinstance(again, Entry) else again
        return self._scripted(entry, view.layer, replayed, seen.seen)

    def _scripted(
        self, entry: Entry, layer: int, replayed: torch.Tensor, seen: dict[str, torch.Tensor]
    ) -> Entry:
        call = Call(layer, replayed.cpu(), seen, _moved(entry, "cpu"))
        self.calls.append(call)
        if self.script is None:
            return entry
        scripted = self.script[len(self.calls) - 1]
        if torch.equal(scripted.kept, call.kept):
            return entry
        return _moved(scripted.entry, entry.keep.device)


T = TypeVar("T", Entry, Mix, WholePrompt)


def _moved(values: T, device: torch.device | str) -> T:
    """Return the same values with their tensors on a device."""
    found: dict[str, Any] = {}
    for field in fields(values):
        value = getattr(values, field.name)
        if isinstance(value, torch.Tensor):
            found[field.name] = value.detach().to(device)
        elif isinstance(value, Mix):
            found[field.name] = _moved(value, device)
    return replace(values, **found)


def _on_cpu(tokens: TokenMap) -> TokenMap:
    """Return the same map with its tensors on the CPU."""
    return mapped(tokens, torch.Tensor.cpu)


@dataclass(frozen=True)
class ChoiceDifference:
    """Difference of a layer's selection between two devices, given the same tokens.

    Attributes
    ----------
    layer : int
        -1 at entry.
    swapped : int
        Half the number of tokens that only one of them keeps.
    scores : float
        Largest difference of the inputs, relative to their largest value.
    same_rule : bool
        Whether the CPU selects the same tokens from the device's inputs.
    """

    layer: int
    swapped: int
    scores: float
    same_rule: bool

    def tie(self, rounding: float) -> bool:
        """Whether there is no difference, or rounding of the inputs explains it."""
        return self.same_rule and self.scores <= rounding


def compare_choices(
    first: Model, second: Model, features: Features, method: Method
) -> list[ChoiceDifference]:
    """Compare, layer by layer, what a method keeps on two devices.

    Parameters
    ----------
    first, second : Model
        The same weights in float32.
    features : Features
    method : Method
        With a fixed plan.

    Returns
    -------
    list of ChoiceDifference
        One per call of the method, with or without a difference.
    """
    runs: list[list[Call]] = []
    for model in (first, second):
        recorder = Recorder(method, runs[0] if runs else None)
        with full_float32():
            greedy(model, features, 1, recorder)
        runs.append(recorder.calls)
    found = []
    for one, other in zip(*runs, strict=True):
        assert one.layer == other.layer
        assert len(one.kept) == len(other.kept)
        swapped = len(one.kept) - int(torch.isin(one.kept, other.kept).sum())
        apart = [_difference(one.seen[key], other.seen[key]) for key in one.seen]
        same = torch.equal(other.replayed, other.kept)
        found.append(ChoiceDifference(one.layer, swapped, max(apart, default=0.0), same))
    return found


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    largest = float(one.abs().max()) if one.numel() else 0.0
    return float((one - other).abs().max()) / largest if largest else 0.0
