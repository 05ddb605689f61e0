"""`check_method`: checks the properties that every pruning method must have.

from omnidrop.testing.methods import check_method

def test_mine():
    check_method(Mine)
    check_method(Mine, strength=2.0)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from omnidrop.errors import BudgetError, OmniDropError, UsageError
from omnidrop.pruning.method import OF_THE_QUESTION, Entry, EntryView, Method, Need
from omnidrop.pruning.names import is_composed
from omnidrop.testing.simulate import (
    Run,
    clip,
    clip_of,
    entry_view,
    prefill,
    reachable,
)
from omnidrop.tokens import TokenMap

#: Largest allowed difference of the mean over the layers from the budget.
TOLERANCE = 0.01 + 1e-9

BUDGETS = (0.05, 0.3, 0.7, 1.0)
DEPTHS = (4, 28)


def clips() -> dict[str, TokenMap]:
    """Return the kinds of clip that every method must handle, by name."""
    return {
        "both": clip(),
        "audio only": clip(grids=0),
        "video only": clip(audio=0),
        "one chunk": clip(chunks=1),
        "one token a chunk": clip(chunks=25, grids=1, height=1, width=1, audio=0),
        "one audio token a chunk": clip(chunks=25, grids=0, audio=1),
        "one frame": clip(chunks=1, grids=1, audio=0),
        "one token": clip_of(1),
        "two tokens": clip_of(2),
        "three tokens": clip_of(3),
        "nothing": clip(chunks=0),
    }


def check_method(
    make: Callable[..., Method],
    *,
    budgets: Sequence[float] = BUDGETS,
    depths: Sequence[int] = DEPTHS,
    tunable: bool = True,
    **settings: Any,
) -> None:
    """Check all properties that a method must have; takes seconds, and needs no model.

    - Plans: one count per layer, never increasing, whose mean is the budget within ±0.01. A budget
      that cannot be reached raises `BudgetError`, and the range it names can be reached.
    - Selections: ascending indices without repeats, exactly as many as planned (an adaptive method
      may select fewer or more, but its mean may not exceed the budget), and merges of existing
      tokens only. States that replace the tokens' own, one row for each; of the text only by a
      method that asks for the whole prompt.
    - The same seed gives the same tokens, also if the method's state is forked between layers.
    - A budget of 1 keeps all tokens and merges none.
    - The method changes neither its inputs nor torch's global random state.
    - Settings are plain values that make an equal method; an invalid budget is refused.
    - A method that asks for the question's embeddings is not declared question-free.
    - Clips without audio, without video, with one token or none, and encoders that report no
      attention, are handled.

    Parameters
    ----------
    make : callable
        The method's class, or a callable that takes `budget` and settings and returns a method.
    budgets, depths : sequence
        Budgets and numbers of layers to test.
    tunable : bool
        Also test each value of the method's `tunable` settings.
    **settings
        Settings of the method.

    Raises
    ------
    AssertionError
        Names the method, its settings, the clip, the depth, and the property that is violated.
    """
    made = partial(make, **settings)
    for budget in (0, -0.1, 1.5, float("nan"), "half"):
        try:
            made(budget=budget)
        except UsageError:
            continue
        raise AssertionError(f"{made(budget=budget).name}: accepts {budget!r} as a budget")
    for kind, tokens in clips().items():
        for layers in depths:
            for budget in budgets:
                check_run(made, budget, tokens, layers, kind)
    _check_whole(made, depths)
    for method in _some(made):
        _check_settings(method)
        _demand(
            not (method.question_free and method.wants & OF_THE_QUESTION),
            *(method, "any clip", depths[0]),
            "declared question-free, but asks for the embeddings of the question",
        )
        _check_repeats(method)
    if tunable:
        for name, values in _tunable(made).items():
            for value in values:
                _check_variant(make, {**settings, name: value})


def check_run(
    make: Callable[..., Method], budget: float, tokens: TokenMap, layers: int, kind: str = "a clip"
) -> Run | None:
    """Run a method at a budget and check the result.

    Returns
    -------
    Run or None
        None if the budget cannot be reached; then both ends of the range that the error names are
        checked instead.
    """
    try:
        method = make(budget=budget)
        run = check_choices(method, tokens, layers, kind)
    except BudgetError as error:
        _check_refusal(make, budget, tokens, layers, kind, error)
        return None
    if len(tokens):
        over = run.realised - budget
        met = over <= TOLERANCE and (over >= -TOLERANCE or run.plan.adaptive)
        _demand(met, method, kind, layers, f"a mean of {run.realised:.4f}, not {budget:g}")
    return run


def check_choices(
    method: Method,
    tokens: TokenMap,
    layers: int,
    kind: str = "a clip",
    seed: int = 0,
    **how: Any,
) -> Run:
    """Run a method and check its plan and selections, but not its mean.

    Other arguments are those of `simulate.prefill`.
    """
    before = torch.get_rng_state()
    run = _run(method, tokens, layers, kind, seed, **how)
    plan, demand = run.plan, partial(_demand, method=method, kind=kind, layers=layers)
    counts = list(plan.counts)
    demand(torch.equal(before, torch.get_rng_state()), what="draws from torch's own generator")
    demand(plan.total == len(tokens), what=f"a plan for {plan.total} tokens, not {len(tokens)}")
    demand(len(counts) == layers, what=f"a plan for {len(counts)} layers")
    demand(counts == sorted(counts, reverse=True), what=f"counts that increase: {counts}")
    met = [len(alive) for alive in run.survivors]
    demand(plan.adaptive or met == counts, what=f"kept {met}, planned {counts}")
    _check_entry(run.entry, len(tokens), demand)
    for entry, alive in run.chosen:
        _check_entry(entry, alive, demand)
        demand(entry.text is None, what="replaces the text after a layer")
    if len(tokens):
        view = entry_view(tokens, seed)
        carried = run.entry.carry(view.embeds)
        demand(bool(torch.isfinite(carried).all()), what="merges into numbers that are not finite")
        demand(carried.shape[1:] == view.embeds.shape[1:], what="states of another width")
        _check_text(method, run.entry.text, view, demand)
    try:
        json.dumps(plan.settings)
    except TypeError as error:
        demand(False, what=f"plan settings that are not valid JSON ({error})")
    return run


def _run(method: Method, tokens: TokenMap, layers: int, kind: str, seed: int, **how: Any) -> Run:
    """Run a method; add the case to any exception that is not an `OmniDropError`."""
    try:
        return prefill(method, tokens, layers, seed, **how)
    except OmniDropError:
        raise
    except Exception as error:
        what = f"raises {type(error).__name__}: {error}"
        _demand(False, method, kind, layers, what, error)
        raise


def _check_entry(entry: Entry, alive: int, demand: Callable[..., None]) -> None:
    """Check one selection out of `alive` tokens."""
    keep = entry.keep
    demand(keep.dtype == torch.int64 and keep.ndim == 1, what=f"indices of type {keep.dtype}")
    demand(bool((keep.diff() > 0).all()), what="indices that are not ascending")
    demand(not len(keep) or 0 <= int(keep[0]) <= int(keep[-1]) < alive, what="indices out of range")
    if entry.states is not None:
        rows, floats = entry.states.shape[0], entry.states.is_floating_point()
        demand(rows == len(keep) and floats, what=f"{rows} rows of states for {len(keep)} tokens")
    if entry.mix is None:
        return
    kept, source, weight = entry.mix.kept, entry.mix.source, entry.mix.weight
    demand(len(kept) == len(source) == len(weight), what="a mix with columns of different length")
    demand(kept.dtype == source.dtype == torch.int64, what="a mix whose indices are not int64")
    demand(bool(((kept >= 0) & (kept < len(keep))).all()), what="a mix into tokens not kept")
    demand(bool(((source >= 0) & (source < alive)).all()), what="a mix of tokens out of range")
    demand(
        bool((torch.isfinite(weight) & (weight > 0)).all()), what="a mix with weights not above 0"
    )


def _check_text(
    method: Method, text: torch.Tensor | None, view: EntryView, demand: Callable[..., None]
) -> None:
    """Check the rows with which a method replaces the text at entry."""
    if text is None:
        return
    asked = Need.PROMPT in method.wants and view.prompt is not None
    demand(asked, what="replaces the text, but does not ask for the whole prompt")
    assert view.prompt is not None
    shape = (len(view.prompt.text), view.embeds.shape[1])
    demand(tuple(text.shape) == shape, what=f"text of shape {tuple(text.shape)}, not {shape}")
    demand(bool(torch.isfinite(text).all()), what="text in numbers that are not finite")


def _check_refusal(
    make: Callable[..., Method],
    budget: float,
    tokens: TokenMap,
    layers: int,
    kind: str,
    error: BudgetError,
) -> None:
    """Check that a refused budget is out of reach, and that the named range is reachable."""
    ends = error.reachable
    where = f"at a budget of {budget:g} on {kind!r} with {layers} layers"
    if ends is None:
        raise AssertionError(f"refused {where}, without a reachable range")
    coarse = not reachable(budget, len(tokens), layers)
    if ends[0] + 0.01 < budget < ends[1] - 0.01 and not coarse and len(tokens) >= 60:
        raise AssertionError(f"refused {where}, though it names {ends} as reachable")
    for end in ends:
        try:
            check_choices(make(budget=end), tokens, layers, kind)
        except BudgetError:
            raise AssertionError(
                f"refused {where}; its reachable {end:g} is refused too"
            ) from error


def _check_whole(make: Callable[..., Method], depths: Sequence[int]) -> None:
    """Check that a budget of 1 keeps everything."""
    for kind, tokens in clips().items():
        for layers in depths:
            method = make(budget=1.0)
            run = check_choices(method, tokens, layers, kind)
            whole = all(len(alive) == len(tokens) for alive in run.survivors)
            _demand(whole, method, kind, layers, "drops tokens at a budget of 1")
            _demand(run.entry.mix is None, method, kind, layers, "merges at a budget of 1")


def _check_settings(method: Method) -> None:
    """Check that settings are plain values that make an equal method."""
    try:
        settings = json.loads(json.dumps(method.settings()))
        hash(method)
    except TypeError as error:
        raise AssertionError(f"{method.label}: settings are not plain values ({error})") from error
    if not is_composed(method.name):
        again = type(method)(**settings)
        if again != method:
            raise AssertionError(f"{method.label}: its settings make another method, {again}")


def _check_repeats(method: Method) -> None:
    """Check that the seed determines the result, and that inputs are not changed."""
    kind, tokens, layers = "both", clip(), 16
    first = check_choices(method, tokens, layers, kind, seed=5)
    for how, again in (
        ("a second time", prefill(method, tokens, layers, 5)),
        ("with its state forked", prefill(method, tokens, layers, 5, fork=True)),
    ):
        same = all(map(torch.equal, first.survivors, again.survivors))
        _demand(same, method, kind, layers, f"chooses other tokens {how}")
    views: list[EntryView] = []

    def see(view: EntryView) -> EntryView:
        views.append(view)
        return view

    prefill(method, tokens, layers, 5, see=see)
    before = entry_view(tokens, 5)
    _demand(
        torch.equal(views[0].embeds, before.embeds), method, kind, layers, "changes the embeddings"
    )
    check_choices(method, tokens, layers, "no attention", 5, see=_unreported)
    check_choices(method, tokens, layers, "equal tokens", 5, see=_equal)


def _unreported(view: EntryView) -> EntryView:
    """Remove the encoders' attention, as with encoders that do not report it."""
    return replace(view, audio_attention=None, video_attention=None)


def _equal(view: EntryView) -> EntryView:
    """Make all tokens equal, so that the selection depends on ties."""
    audio, prompt = view.audio_attention, view.prompt
    return replace(
        view,
        embeds=torch.ones_like(view.embeds),
        prompt=prompt and replace(prompt, embeds=torch.ones_like(prompt.embeds)),
        audio_attention=None if audio is None else torch.full_like(audio, 0.5),
    )


def _check_variant(make: Callable[..., Method], settings: Mapping[str, Any]) -> None:
    """Test one value of a setting on a few clips."""
    for kind in ("both", "two tokens", "video only"):
        for budget in (0.2, 0.6):
            try:
                check_run(partial(make, **settings), budget, clips()[kind], 16, kind)
            except UsageError:
                continue


def _some(make: Callable[..., Method]) -> Iterator[Method]:
    """Yield the method at the budgets that an ordinary clip can reach, at least one."""
    for budget in (0.4, 1.0):
        method = make(budget=budget)
        try:
            method.plan(clip(), 16)
        except BudgetError:
            continue
        yield method


def _tunable(make: Callable[..., Method]) -> dict[str, tuple[Any, ...]]:
    return make(budget=1.0).tunable()


def _demand(
    holds: bool,
    method: Method,
    kind: str,
    layers: int,
    what: str,
    cause: Exception | None = None,
) -> None:
    """Raise an error with everything that is needed to reproduce it, unless it `holds`."""
    if not holds:
        raise AssertionError(
            f"{method.label} on {kind!r} with {layers} layers: {what}. "
            f"Settings: {method.settings()}."
        ) from cause
