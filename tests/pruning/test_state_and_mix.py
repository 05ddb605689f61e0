"""What a method remembers, and how merging carries over to any tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.method import Entry, LayerMethod, MethodState, Mix
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.pruning.methods.sparsevlm import SparseVLM
from omnidrop.pruning.parts.rank_stability import RankMovement
from omnidrop.testing.simulate import clip, entry_view


@dataclass
class Remembered(MethodState):
    """All that a state may hold."""

    left: int
    big: torch.Tensor
    counts: list[int] = field(default_factory=list)
    more: dict[str, torch.Tensor] = field(default_factory=dict)
    signal: RankMovement = field(default_factory=lambda: RankMovement(2))


def test_a_fork_may_change_and_shares_tensors():
    state = Remembered(3, torch.ones(1000), [1], {"a": torch.zeros(2)})
    state.signal.add(torch.tensor([0.1, 0.2]))
    fork = state.fork()
    fork.left, fork.counts[0] = 7, 9
    fork.signal.add(torch.tensor([0.3, 0.2]))
    assert (state.left, state.counts) == (3, [1])
    assert len(state.signal._ranks) == 1
    assert fork.big is state.big
    assert fork.more["a"] is state.more["a"]
    fork.more["b"] = torch.ones(1)
    assert list(state.more) == ["a"]


def test_tensors_are_found_wherever_they_are():
    state = Remembered(3, torch.ones(1000), [1], {"a": torch.zeros(2)})
    state.signal.add(torch.tensor([0.1, 0.2]))
    assert [t.numel() for t in state.tensors()] == [1000, 2, 2]
    assert MethodState().tensors() == ()


def test_sparsevlm_shares_the_clips_embeddings_and_lets_them_go():
    method, tokens = SparseVLM(budget=0.4), clip()
    view = entry_view(tokens, state=method.start(method.plan(tokens, 16)))
    method.watch(view)
    fork = view.state.fork()
    assert fork.embeds is view.embeds
    assert view.state.tensors() == (view.embeds,)


def test_omnidrop_remembers_only_what_it_needs():
    tokens = clip()
    fixed, asl = OmniDrop(budget=0.3), OmniDrop(budget=0.3, turning="asl")
    assert type(fixed.start(fixed.plan(tokens, 16))) is MethodState
    assert asl.start(asl.plan(tokens, 16)).left > 0


def test_a_mix_is_a_weighted_mean_of_its_sources():
    rows = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    mix = Mix(torch.tensor([1, 1, 1]), torch.tensor([2, 0, 1]), torch.tensor([2.0, 1, 1]))
    entry = Entry(torch.tensor([0, 2, 3]), mix)
    taken = entry.take(rows)
    assert taken.tolist() == [[1, 2], [3.5, 4.5], [7, 8]]
    assert entry.take(rows * 2).tolist() == [[2, 4], [7, 9], [14, 16]]  # any tensor with such rows
    assert rows.tolist()[2] == [5, 6]


def test_a_kept_token_may_take_in_others_without_itself():
    rows = torch.eye(3)
    entry = Entry(torch.tensor([0]), Mix(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.5])))
    assert entry.take(rows).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_taken_in_float32_whatever_goes_in(dtype):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(1500, 4, generator=draw).to(dtype)
    source = torch.arange(1500)
    mix = Mix(torch.zeros(1500, dtype=torch.int64), source, torch.ones(1500))
    taken = Entry(torch.tensor([3]), mix).take(rows)
    assert taken.dtype == dtype
    torch.testing.assert_close(taken, rows.double().mean(0, keepdim=True).to(dtype))


def test_words_and_switches_are_checked_from_their_annotations():
    with pytest.raises(UsageError, match=r"Unknown cache 'burn'\. Use own, cut\."):
        LayerMethod(cache="burn")
    with pytest.raises(UsageError, match=r"Unknown rows 'first'\. Use question, last, all-text\."):
        OmniDrop(rows="first")
    with pytest.raises(UsageError, match="solve must be true or false"):
        OmniDrop(solve=1)


@dataclass(frozen=True)
class Numbered(LayerMethod):
    """A method that leaves the checking of its numbers to its annotations."""

    share: float = 0.5
    after: int | None = None
    either: int | str = 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": "high"}, "share must be a number, not 'high'"),
        ({"share": True}, "share must be a number, not True"),
        ({"share": float("nan")}, "share must be a number"),
        ({"share": None}, "share must be a number, not None"),
        ({"after": 2.5}, "after must be a whole number, not 2.5"),
    ],
)
def test_numbers_are_checked_from_their_annotations(settings, said):
    with pytest.raises(UsageError, match=said):
        Numbered(**settings)


def test_numbers_that_annotations_allow_are_taken():
    made = Numbered(share=1, after=None, either="any")
    assert (made.share, made.after, made.either) == (1, None, "any")
    assert Numbered(after=3).after == 3
