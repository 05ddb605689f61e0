"""Composition: one method chooses what enters, another what stays inside the layers.

A method consists of up to three parts: a schedule (how many tokens enter each layer), a choice at
entry (which tokens enter layer 0) and a choice inside the layers (which survivors enter the next
layer). `Compose` takes them from different methods and meets one budget with all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import (
    OF_THE_QUESTION,
    Backbone,
    CachePolicy,
    Entry,
    EntryView,
    LayerView,
    Method,
    MethodState,
    Part,
    Plan,
)
from omnidrop.pruning.parts.select import even
from omnidrop.tokens import TokenMap

#: Settings of the composition itself; its parts have none of these names.
OWN = ("budget", "cache", "enters")


@dataclass(frozen=True)
class Compose(Method):
    """Joins the entry choice of one method with the in-layer choice of another, at one budget.

    Ours: all of it. The name is `ENTRY+LAYERS` or `ENTRY+LAYERS@SCHEDULE`: "uniform+omnidrop",
    "random+random@omnidrop". Settings of a part are written `entry.NAME`, `layers.NAME` and
    `schedule.NAME`, or plainly `NAME` where only one part has it.

    The schedule fixes how many tokens enter, and the entry method chooses that many. The schedules
    of FastV, PyramidDrop and SparseVLM let every token in; for them `enters` says which share
    enters, and the schedule is solved over those for what is left of the budget.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N. The parts' own budgets are not
        used; they must be left out.
    entry : Method
        Chooses what enters; "none" lets every token in.
    layers : Method
        Chooses what stays inside the layers.
    schedule : Method, optional
        Whose schedule is solved for the budget; by default that of `layers`.
    enters : float, optional
        Share of the tokens that enters layer 0. By default the schedule decides. Where it would
        let every token in, the default is the square root of the budget, so that entry and layers
        keep the same share each, or less where the layers alone cannot keep so little.
    cache : {"own", "cut"}, optional
        Caches of earlier layers: each layer's own, or cut to the survivors. By default as the
        method of `layers` does.
    """

    entry: Method = field(default_factory=Method)
    layers: Method = field(default_factory=Method)
    schedule: Method | None = None
    enters: float | None = None
    cache: CachePolicy | None = None  # type: ignore[assignment]  # never None once made

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.enters is not None:
            checks.number("enters", self.enters, low=1e-6, high=1)
        for part, method in self._named().items():
            if method.budget not in (1.0, self.budget):
                raise UsageError(
                    f"A composition has one budget, and its {part} {method.name!r} has another.",
                    hint="Give the budget to the composition alone.",
                )
            # A part is the same part at every budget.
            object.__setattr__(self, part, replace(method, budget=1.0))
        if self.cache is None:
            object.__setattr__(self, "cache", self.layers.cache)
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse methods that do not have what the composition wants of them."""
        entry, layers, schedule = self.entry, self.layers, self._schedule
        if not self._keeps_all and Part.ENTRY not in entry.parts():
            raise UsageError(
                f"{entry.name!r} cannot be the entry of a composition: it chooses nothing at "
                "entry, or its settings fix how many tokens enter.",
                hint="Use a method that enters any number of tokens, like uniform, or none.",
            )
        if Part.LAYERS not in layers.parts():
            raise UsageError(
                f"{layers.name!r} cannot choose inside the layers: it chooses at entry only.",
                hint="Use a method like omnidrop, fastv or random for the layers.",
            )
        if Part.SCHEDULE not in schedule.parts():
            raise UsageError(
                f"{schedule.name!r} has no schedule over the layers.",
                hint=f"Say whose schedule to use: {entry.name}+{layers.name}@omnidrop.",
            )
        if self.schedule is not None and layers.needs_own_schedule:
            raise UsageError(
                f"{layers.name!r} inside the layers works with its own schedule only.",
                hint=f"Leave out @{schedule.name}.",
            )
        fixed = schedule.entry_field is not None or schedule.enters_all
        if self._share is not None and not fixed:
            raise UsageError(
                f"The schedule of {schedule.name!r} says itself how many tokens enter.",
                hint="Leave enters out, and use another entry method than none.",
            )
        own = getattr(schedule, schedule.entry_field) if schedule.entry_field else None
        if self._share is not None and own not in (None, self._share):
            raise UsageError(
                f"A share of {self._share:g} of the tokens enters, so that "
                f"{schedule.entry_field} cannot be {own:g}.",
                hint=f"Leave {schedule.entry_field} out.",
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The parts' names: "uniform+omnidrop", "random+random@omnidrop"."""
        tail = "" if self.schedule is None else f"@{self.schedule.name}"
        return f"{self.entry.name}+{self.layers.name}{tail}"

    @property
    def wants(self) -> frozenset[str]:  # type: ignore[override]
        """What the entry method needs; nothing is needed that only another entry would use."""
        return self.entry.wants

    @property
    def own_layers(self) -> int:  # type: ignore[override]
        """The layers that the entry method runs."""
        return self.entry.own_layers

    @property
    def phrases(self) -> tuple[str, ...]:  # type: ignore[override]
        """The phrases of the entry method."""
        return self.entry.phrases

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether one of the parts draws at random."""
        return self.entry.draws or self.layers.draws

    @property
    def question_free(self) -> bool:  # type: ignore[override]
        """Whether neither part asks anything of the text."""
        return self.layers.question_free and not self.wants & OF_THE_QUESTION

    @property
    def needs_host(self) -> str:  # type: ignore[override]
        """Why the choice inside the layers needs the CPU, if it does."""
        return self.layers.needs_host

    @property
    def _schedule(self) -> Method:
        return self.layers if self.schedule is None else self.schedule

    @property
    def _keeps_all(self) -> bool:
        """Whether every token enters because the entry is the method "none"."""
        return type(self.entry) is Method

    @property
    def _share(self) -> float | None:
        """Share of the tokens that enters, if the composition fixes it."""
        return 1.0 if self._keeps_all else self.enters

    def _named(self) -> dict[str, Method]:
        """Return the methods by the name of their part."""
        found = {"entry": self.entry, "layers": self.layers}
        return found if self.schedule is None else {**found, "schedule": self.schedule}

    def parts(self) -> frozenset[Part]:
        """Return nothing: a composition is not part of another one."""
        return frozenset()

    def settings(self) -> dict[str, Any]:
        """Return own settings, and those of the parts under dotted names, as plain values."""
        found: dict[str, Any] = {"budget": self.budget, "cache": self.cache, "enters": self.enters}
        roles = part_roles(self.schedule is not None)
        for part, method in self._named().items():
            known = method.settings()
            for name in live_fields(type(method), roles[part]):
                found[f"{part}.{name}"] = known[name]
        return found

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of the parts that `omnidrop calibrate` tries, under dotted names."""
        found: dict[str, tuple[Any, ...]] = {}
        if self._schedule.enters_all and not self._keeps_all:
            found["enters"] = (None, 0.2, 0.3, 0.45, 0.6, 0.8)
        roles = part_roles(self.schedule is not None)
        for part, method in self._named().items():
            live = live_fields(type(method), roles[part])
            for name, values in method.tunable().items():
                if name in live and not (name == method.entry_field and self._share is not None):
                    found[f"{part}.{name}"] = values
        return found

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the schedule for the budget, with as many tokens entering as it or `enters` says.

        Raises
        ------
        BudgetError
            If the budget cannot be reached within ±0.01; names the reachable range.
        """
        schedule, share = self._schedule, self._share
        if not len(tokens):
            return replace(schedule, budget=self.budget).plan(tokens, layers)
        if share is None and schedule.enters_all:
            plan = self._split(tokens, layers)
        elif share is None:
            plan = replace(schedule, budget=self.budget).plan(tokens, layers)
        elif schedule.entry_field is not None:
            changes: dict[str, Any] = {schedule.entry_field: share}
            plan = replace(schedule, budget=self.budget, **changes).plan(tokens, layers)
        else:
            plan = self._over(tokens, layers, min(max(round(share * len(tokens)), 1), len(tokens)))
        return plan if self.schedule is None else replace(plan, adaptive=False)

    def _over(self, tokens: TokenMap, layers: int, enters: int) -> Plan:
        """Solve the schedule over `enters` tokens, so that the mean over all tokens is the budget.

        The schedule's own `plan` gets evenly spaced tokens in place of those that will enter.
        """
        total = len(tokens)
        rest = self.budget * total / enters
        if rest > 1 + schedules.TOLERANCE * total / enters:
            lowest = self._lowest(tokens, layers, enters)
            raise schedules.refusal(self.budget, total, layers, lowest, enters * layers)
        schedule = replace(self._schedule, budget=min(rest, 1.0))
        try:
            plan = schedule.plan(tokens.select(even(total, enters)), layers)
        except BudgetError as error:
            low, high = (round(end * enters * layers) for end in _ends(error))
            raise schedules.refusal(self.budget, total, layers, low, high) from error
        settings = {**plan.settings, "enters": round(enters / total, 6)}
        return Plan(total, plan.counts, settings, plan.adaptive)

    def _lowest(self, tokens: TokenMap, layers: int, enters: int) -> int:
        """Return the fewest tokens, summed over the layers, that the schedule can reach."""
        try:
            some = tokens.select(even(len(tokens), enters))
            plan = replace(self._schedule, budget=1e-9).plan(some, layers)
        except BudgetError as error:
            return round(_ends(error)[0] * enters * layers)
        return sum(plan.counts)

    def _split(self, tokens: TokenMap, layers: int) -> Plan:
        """Let the square root of the budget enter, or fewer where the layers keep too much."""
        total = len(tokens)
        first = min(max(math.ceil(math.sqrt(self.budget) * total - 1e-9), 1), total)
        tried: set[int] = set()
        enters = first
        while enters >= 1 and len(tried) < _TRIES:
            tried.add(enters)
            try:
                return self._over(tokens, layers, enters)
            except BudgetError as error:
                low = _ends(error)[0] * total / enters  # of what enters
                most = math.floor(self.budget * total / low + 1e-9) if low > 0 else enters
                enters = min(enters - 1, most)
        for enters in range(first + 1, min(total, first + _TRIES) + 1):
            try:
                return self._over(tokens, layers, enters)
            except BudgetError:
                continue
        lowest = self._lowest(tokens, layers, 1)
        raise schedules.refusal(self.budget, total, layers, lowest, total * layers)

    def check_model(self, backbone: Backbone, width: int) -> None:
        """Check what the parts need."""
        for method in (self.entry, self.layers):
            method.check_model(backbone, width)

    def start(self, plan: Plan) -> MethodState:
        """Remember what the method inside the layers remembers."""
        return self.layers.start(plan)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Let the entry method choose what enters."""
        self.layers.watch(view)
        if self._keeps_all:
            return Entry(torch.arange(plan.total))
        return self.entry.enter(replace(view, state=self.entry.start(plan)), plan)

    def keep(self, view: LayerView, count: int) -> torch.Tensor | Entry:
        """Let the other method choose what stays."""
        return self.layers.keep(view, count)


def _ends(error: BudgetError) -> tuple[float, float]:
    """Return the reachable range; a schedule that does not tell may reach anything."""
    return error.reachable or (0.0, 1.0)


#: Counts of entering tokens that are tried where few tokens make a budget hard to meet.
_TRIES = 64


def part_roles(scheduled: bool) -> Mapping[str, frozenset[Part]]:
    """Return what each part of a composition does, by its name.

    Parameters
    ----------
    scheduled : bool
        A third method gives the schedule; otherwise that of the layers does.
    """
    layers = frozenset({Part.LAYERS} if scheduled else {Part.LAYERS, Part.SCHEDULE})
    roles = {"entry": frozenset({Part.ENTRY}), "layers": layers}
    return {**roles, "schedule": frozenset({Part.SCHEDULE})} if scheduled else roles


def live_fields(kind: type[Method], roles: frozenset[Part]) -> tuple[str, ...]:
    """Return the settings of a method that act when it only does `roles` in a composition."""
    return tuple(
        f.name
        for f in fields(kind)
        if f.name not in OWN and roles & kind.used_by.get(f.name, frozenset(Part))
    )
