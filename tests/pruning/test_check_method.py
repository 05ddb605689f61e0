"""`check_method` passes what is right, and names what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from omnidrop.errors import BudgetError
from omnidrop.pruning.method import Entry, MethodState, Mix, Plan
from omnidrop.pruning.methods.fastv import FastV
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.pruning.parts.select import top
from omnidrop.testing import check_method


@pytest.mark.parametrize("kind", [Uniform, FastV])
def test_right_methods_pass(kind):
    check_method(kind)


@dataclass
class Counting(MethodState):
    """How often something was chosen."""

    calls: list[int] = field(default_factory=list)

    def fork(self):
        return self


@dataclass(frozen=True)
class Unsorted(Uniform):
    """Breaks the order."""

    def enter(self, view, plan):
        return Entry(super().enter(view, plan).keep.flip(0))


@dataclass(frozen=True)
class Generous(Uniform):
    """Lets one too many in."""

    def enter(self, view, plan):
        return Entry(torch.arange(min(plan.counts[0] + 1, plan.total)))


@dataclass(frozen=True)
class Thrifty(Uniform):
    """Plans half of the budget."""

    def plan(self, tokens, layers):
        if self.budget == 1 or not len(tokens):
            return super().plan(tokens, layers)
        return replace(self, budget=self.budget / 2 + 0.2).plan_flat(tokens, layers)

    def plan_flat(self, tokens, layers):
        return Uniform(budget=self.budget).plan(tokens, layers)


@dataclass(frozen=True)
class Restless(Uniform):
    """Draws from torch's own generator."""

    def enter(self, view, plan):
        return Entry(torch.randperm(plan.total)[: plan.counts[0]].sort().values)


@dataclass(frozen=True)
class Scribbling(Uniform):
    """Changes what it was given."""

    def enter(self, view, plan):
        view.embeds[:1] = 0.0
        return super().enter(view, plan)


@dataclass(frozen=True)
class Inventing(Uniform):
    """Merges tokens that are not there."""

    def enter(self, view, plan):
        entry = super().enter(view, plan)
        if plan.counts[0] == plan.total:
            return entry
        return Entry(entry.keep, Mix(torch.tensor([0]), torch.tensor([plan.total]), torch.ones(1)))


@dataclass(frozen=True)
class Peeking(FastV):
    """Says that it does not look at the question."""

    question_free = True


@dataclass(frozen=True)
class Forgetful(FastV):
    """Chooses by what it chose before, and shares that with its forks."""

    seen = Counting()

    def start(self, plan):
        return self.seen

    def keep(self, view, count):
        view.state.calls.append(count)
        return top(view.attention("last").roll(len(view.state.calls)), count)


@dataclass(frozen=True)
class Stubborn(Uniform):
    """Refuses what it says it can do."""

    def plan(self, tokens, layers):
        if self.budget < 0.5:
            raise BudgetError("no", reachable=(0.1, 1.0))
        return super().plan(tokens, layers)


@dataclass(frozen=True)
class Rising(Uniform):
    """Lets tokens come back."""

    def plan(self, tokens, layers):
        plan = super().plan(tokens, layers)
        return plan if self.budget == 1 else Plan(plan.total, (*plan.counts[:-1], plan.total))


@dataclass(frozen=True)
class Dropping(Uniform):
    """Drops at a budget of one."""

    def plan(self, tokens, layers):
        if self.budget < 1 or not len(tokens):
            return super().plan(tokens, layers)
        return Plan(len(tokens), (len(tokens),) * (layers - 1) + (len(tokens) - 1,))

    def keep(self, view, count):
        return torch.arange(count)


@dataclass(frozen=True)
class Unplain(Uniform):
    """Has a setting that JSON does not know."""

    how: object = field(default_factory=object)


@dataclass(frozen=True)
class Careless(Uniform):
    """Takes any budget."""

    def __post_init__(self):
        pass


@dataclass(frozen=True)
class Unready(Uniform):
    """Counts on attention of the encoder."""

    def enter(self, view, plan):
        view.audio_attention.sum()
        return super().enter(view, plan)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unsorted, "not ascending"),
        (Generous, "kept .* planned"),
        (Thrifty, "a mean of .* not 0"),
        (Restless, "torch's own generator"),
        (Scribbling, "changes the embeddings"),
        (Inventing, "tokens out of range"),
        (Peeking, "question-free"),
        (Forgetful, "chooses other tokens"),
        (Stubborn, "refused at a budget"),
        (Rising, "counts that increase"),
        (Dropping, "budget of 1|a mean of"),
        (Unplain, "not plain values"),
        (Careless, "as a budget"),
        (Unready, "'no attention' with 16 layers: raises AttributeError"),
    ],
)
def test_wrong_methods_are_named(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_method(kind)
