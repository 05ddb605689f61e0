"""PyramidDrop against its description written out once more, and against the public counts."""

from __future__ import annotations

import pytest
import torch

from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.methods.pyramiddrop import PyramidDrop
from omnidrop.testing.simulate import View, clip_of, prefill


def by_hand(total: int, layers: int, keep: float) -> list[int]:
    """Write the counts out: int(N · keep^i), one i more from each quarter of the depth on."""
    counts = []
    for layer in range(layers):
        passed = 0
        for quarter in (1, 2, 3):
            if layer >= round(quarter * layers / 4):
                passed += 1
        n = float(total)
        for _ in range(passed):
            n *= keep
        counts.append(int(n))
    return counts


@pytest.mark.parametrize("total", [7, 576, 1001])
@pytest.mark.parametrize("layers", [4, 16, 28, 32, 36])
def test_the_papers_setting(layers, total):
    (preset,) = PyramidDrop.presets().values()
    plan = preset.plan(clip_of(total), layers)
    assert list(plan.counts) == by_hand(total, layers, 0.5)
    assert plan.realised == pytest.approx(15 / 32, abs=1 / total)
    assert plan.settings["solved"] is False


def test_public_code_on_576_tokens_and_32_layers():
    (preset,) = PyramidDrop.presets().values()
    counts = preset.plan(clip_of(576), 32).counts
    assert counts == (576,) * 8 + (288,) * 8 + (144,) * 8 + (72,) * 8


@pytest.mark.parametrize("budget", [0.26, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("layers", [16, 28])
def test_one_share_is_solved_for_the_budget(budget, layers):
    plan = PyramidDrop(budget=budget).plan(clip_of(1000), layers)
    assert plan.realised == pytest.approx(budget, abs=0.002)
    assert list(plan.counts) == by_hand(1000, layers, 1 - plan.settings["p_final"])


@pytest.mark.parametrize("layers", [4, 16, 28])
def test_the_first_quarter_sees_everything(layers):
    with pytest.raises(BudgetError, match="reachable") as caught:
        PyramidDrop(budget=0.2).plan(clip_of(1000), layers)
    assert caught.value.reachable == (0.25, 1.0)
    early = PyramidDrop(budget=0.2, stages=[0.1, 0.5]).plan(clip_of(1000), layers * 2)
    assert early.realised == pytest.approx(0.2, abs=0.01)


def test_a_given_share_is_kept_and_its_mean_is_told():
    plan = PyramidDrop(budget=0.3, keep_share=0.7).plan(clip_of(1000), 16)
    assert plan.counts[::4] == (1000, 700, 490, 343)
    assert "not 0.3" in plan.settings["note"]


def test_survivors_follow_the_last_token_of_the_prompt():
    tokens = clip_of(40)

    class Last(View):
        def attention(self, rows):
            assert rows == "last"
            return self.scores

    scores = torch.rand(40, generator=torch.Generator().manual_seed(3))
    kept = PyramidDrop().keep(Last(3, 16, tokens, torch.Generator(), scores), 20).tolist()
    by_score = sorted(range(40), key=lambda i: (-float(scores[i]), i))
    assert kept == sorted(by_score[:20])


def test_a_run_drops_at_the_quarters_only():
    run = prefill(PyramidDrop(budget=0.5), clip_of(300), 16)
    sizes = [len(s) for s in run.survivors]
    assert [i for i in range(1, 16) if sizes[i] < sizes[i - 1]] == [4, 8, 12]


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_share": 1.5},
        {"keep_share": "half"},
        {"stages": ()},
        {"stages": 0.5},
        {"stages": (0.5, 0.25)},
        {"stages": (0.5, 2)},
        {"stages": ("a",)},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        PyramidDrop(**wrong)
