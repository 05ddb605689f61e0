"""Calibration: what is found, what is asked for it, and what keeps it from fooling itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stub import StubModel, StubSession, make_trace

from omnidrop.errors import BudgetError, OutsideError, UsageError
from omnidrop.evaluation.calibrate.grid import Grid, ranges_of, synthetic_clip
from omnidrop.evaluation.calibrate.search import (
    Search,
    calibrate,
    gain,
    most_asks,
    rungs,
    split,
    standing,
    too_few,
)
from omnidrop.evaluation.calibrate.trials import Mark, Trials
from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.runner import RunOptions
from omnidrop.evaluation.sets import read_set
from omnidrop.models.world import World
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.pruning.methods.pyramiddrop import PyramidDrop
from omnidrop.pruning.presets import read_preset
from omnidrop.report.trace import Answer, Choice

RANGES = {"beta": (5.0, 10.0, 20.0, 40.0), "diversity": (0.0, 0.2, 0.4)}


class Session(StubSession):
    """Gives the right choice the probability that the model's rule says."""

    def ask(self, question, *, method, choices, options, system, reuse, anyway):
        asked = (self.path.name, question, json.dumps(method.settings(), sort_keys=True))
        self.model.log.append(("ask", *asked))
        share = self.model.score(self.path.name, question, method)
        trace = self.model.trace(method, question, self.clip.identity, options.seed)
        right = "yes" if "yes" in choices else "A"
        wrong = "no" if "yes" in choices else "B"
        found = [Choice(right, share, 0.0), Choice(wrong, 1 - share, 0.0)]
        found.sort(key=lambda choice: -choice.probability)
        text = found[0].text if choices else ("yes" if share > 0.5 else "dunno")
        return Answer(text, (1,), "choice", trace, question, tuple(found) if choices else ())


class Model(StubModel):
    """A stub whose answers depend on a method's settings."""

    def __init__(self, score: Any) -> None:
        super().__init__()
        self.score, self.trace = score, make_trace
        self.info.text = SimpleNamespace(vocab=4, layers=28)

    def open(self, path, options):
        opened = super().open(path, options)
        return Session(self, path, opened.clip)


def near(clip: str, question: str, method: Any) -> float:
    """Best at beta 40 and no diversity."""
    return 0.9 - abs(method.beta - 40) / 100 - method.diversity + int(question[-2]) / 1000


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    """Sixty questions about fifteen clips."""
    rows = []
    for clip in range(15):
        (tmp_path / f"clip{clip}.mp4").write_text(f"clip {clip}")
        rows += [
            {
                "id": f"q{clip}{n}",
                "video": f"clip{clip}.mp4",
                "question": f"Is it {n}?",
                "choices": ["no", "yes"],
                "answer": "yes",
            }
            for n in range(4)
        ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_set(path)
    return QuestionSet(found.name, found.items, found.source, style="plain")


def test_the_best_of_a_grid_is_found(questions):
    model = Model(near)
    found = calibrate(model, questions, search=Search((0.3,), candidates=6), ranges=RANGES)
    assert found.best == {"beta": 40.0, "diversity": 0.0}
    assert found.better
    assert found.preset.fields == found.best
    assert found.preset.at() == OmniDrop(budget=0.3, beta=40.0, diversity=0.0)
    assert found.tried[0][0] == found.best
    scores = [one.score for _, one in found.tried]
    assert scores == sorted(scores, reverse=True)
    default = near("", "Is it 0?", OmniDrop(budget=0.3)) + 0.0015
    for side, clips in ((found.train, 9), (found.held_out, 6)):
        assert (side.clips, side.questions) == (clips, 4 * clips)
        assert side.default.score == pytest.approx(default)
        assert side.gain.score == pytest.approx(0.4)
        assert side.chosen.flops == pytest.approx(0.3)
        assert side.gain.accuracy == 1.0 - side.default.accuracy


def test_what_loses_on_held_out_clips_is_not_kept(questions):
    search = Search((0.3,), candidates=6)
    held = {item.video.name for item in split(questions, search)[1]}

    def score(clip, question, method):
        better = near(clip, question, method)
        return 0.6 - better / 2 if clip in held else better

    found = calibrate(Model(score), questions, search=search, ranges=RANGES)
    assert found.best == {"beta": 40.0, "diversity": 0.0}
    assert not found.better
    assert found.preset.fields == {}
    assert found.train.gain.score > 0 > found.held_out.gain.score
    assert found.preset.made["kept"] == "defaults"
    assert found.preset.made["found"] == found.best


def test_flops_have_a_price(questions):
    """Half of the FLOPs for two points less: worth it at a price over 0.13, not under."""

    def score(clip, question, method):
        return 0.7 if method.beta == 5 else 0.72

    def cheap(*words: Any) -> Any:
        made = make_trace(*words)
        return replace(made, flops_prefill=1.5e5) if words[0].beta == 5 else made

    for price, best in ((0.1, {}), (0.2, {"beta": 5.0})):
        model = Model(score)
        model.trace = cheap
        search = Search((0.3,), 4, price=price)
        assert calibrate(model, questions, search=search, ranges={"beta": (5.0, 20.0)}).best == best


def test_clips_are_on_one_side_only(questions):
    for seed in range(5):
        train, held = split(questions, Search(seed=seed))
        assert not {i.video for i in train} & {i.video for i in held}
        assert sorted(i.id for i in train + held) == sorted(i.id for i in questions.items)
        assert (train, held) == split(questions, Search(seed=seed))
        for part in (train, held):  # the questions of a clip stay together
            clips = [i.video for i in part]
            assert len(dict.fromkeys(clips)) == len(list(groupby(clips)))
    assert split(questions, Search(seed=1)) != split(questions, Search(seed=2))


def test_one_clip_cannot_be_split(questions):
    with pytest.raises(UsageError, match="two clips"):
        split(questions.part(questions.items[:4]), Search())


@pytest.mark.parametrize("candidates", [2, 5, 12, 40])
@pytest.mark.parametrize("budgets", [(0.3,), (0.5, 0.2)])
def test_no_question_is_asked_twice_or_beyond_what_was_said(questions, candidates, budgets):
    model = Model(near)
    told = []
    search = Search(budgets, candidates)
    calibrate(model, questions, search=search, ranges=RANGES, on_ask=lambda: told.append(1))
    asked = Counter(entry for entry in model.log if entry[0] == "ask")
    assert set(asked.values()) == {1}
    assert len(told) == len(asked)
    train, held = split(questions, search)
    assert len(asked) <= most_asks(RANGES, len(train), len(held), search)
    rounds = len(rungs(candidates, len(train))) + len(rungs(5, len(train))) + 1
    assert model.count("open") <= 8 * rounds


class Stop(Exception):
    """Somebody pressed Ctrl-C."""


def test_a_stopped_call_goes_on(questions, tmp_path):
    whole, first, second = Model(near), Model(near), Model(near)
    search, path = Search((0.3,), 6), tmp_path / "p.json.trials.jsonl"
    want = calibrate(whole, questions, search=search, ranges=RANGES)

    def stop() -> None:
        if first.count("ask") == 30:
            raise Stop

    with pytest.raises(Stop):
        calibrate(first, questions, search=search, ranges=RANGES, trials=path, on_ask=stop)
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"schema": "omnidrop.tri')  # cut short
    got = calibrate(second, questions, search=search, ranges=RANGES, trials=path)
    assert got == want
    assert first.count("ask") + second.count("ask") == whole.count("ask")
    third = Model(near)
    calibrate(third, questions, search=search, ranges=RANGES, trials=path)
    assert third.count("ask") == 0


def test_trials_of_another_clip_or_file_do_not_count(questions, tmp_path):
    path = tmp_path / "t.jsonl"
    search = Search((0.3,), 3)
    calibrate(Model(near), questions, search=search, ranges=RANGES, trials=path)
    questions.items[0].video.write_text("another film")
    again = Model(near)
    calibrate(again, questions, search=search, ranges=RANGES, trials=path)
    assert {entry[1] for entry in again.log if entry[0] == "ask"} == {"clip0.mp4"}
    path.write_text('{"some": "json"}\n')
    with pytest.raises(UsageError, match="no trials"):
        calibrate(again, questions, search=search, ranges=RANGES, trials=path)


@pytest.mark.slow
def test_defaults_that_cannot_reach_the_budget(questions):
    def score(clip, question, method):
        method.plan(*_clip())
        return 0.8 - method.stages[0]

    found = calibrate(Model(score), questions, "pyramiddrop", Search((0.2,), 12))
    assert found.train.default is found.train.gain is None
    assert found.better
    assert found.best["stages"][0] == 0.0
    assert found.refused == 1
    assert found.preset.at().plan(*_clip()).realised == pytest.approx(0.2, abs=0.01)
    assert found.preset.at() == PyramidDrop(budget=0.2, stages=(0.0, 0.25, 0.5))


def _clip():
    return synthetic_clip(), 28


def test_no_setting_reaches_the_budget(questions):
    def score(clip, question, method):
        raise BudgetError("Too low.", reachable=(0.5, 1.0))

    with pytest.raises(BudgetError, match=r"No setting tried.*Too low"):
        calibrate(Model(score), questions, search=Search((0.3,), 4), ranges=RANGES)


def test_a_broken_clip_stops_it(questions):
    questions.items[5].video.unlink()
    with pytest.raises(Exception, match="clip1"):
        calibrate(Model(near), questions, search=Search((0.3,), 4), ranges=RANGES)


@pytest.mark.parametrize("style", ["plain", "letters"])
def test_the_score_is_the_probability_of_the_right_choice(questions, style):
    items = [questions.items[0]]
    model = Model(lambda clip, question, method: 0.3)
    if style == "letters":  # the stub's right letter is A, and the right choice is B
        model.score = lambda clip, question, method: 0.7
    asking = Trials(model, questions, "omnidrop", (0.3,), RunOptions(style=style))
    assert asking.ask([{}], items) == [{}]
    (mark,) = asking.flat({}, items)
    assert mark.score == pytest.approx(0.3)
    assert mark.right is False


def test_without_choices_the_reply_is_read(questions):
    items = [replace(item, choices=()) for item in questions.items[:2]]
    model = Model(lambda clip, question, method: 0.9 if question == "Is it 0?" else 0.1)
    asking = Trials(model, questions.part(items), "omnidrop", (0.3,), RunOptions())
    asking.ask([{}], items)
    assert [(m.score, m.right) for m in asking.flat({}, items)] == [(1.0, True), (0.0, False)]


def test_rungs_halve_and_double():
    assert rungs(24, 200) == [(24, 25), (12, 50), (6, 100), (3, 200)]
    assert rungs(2, 10) == [(2, 10)]
    assert rungs(100, 3)[-1][1] == 3
    for candidates in range(2, 60, 7):
        for count in (1, 2, 9, 100):
            steps = rungs(candidates, count)
            assert steps[0][0] == candidates
            assert steps[-1][1] == count
            assert all(a[1] <= b[1] for a, b in pairwise(steps))


def test_a_grid_leaves_out_what_cannot_work():
    ranges = {"turning": ("fixed", "asl"), "diversity": (0.2, 0.5), "t_mid": (None, 0.9)}
    drawn = Grid("omnidrop", ranges, (0.3,), 28).draw(20, seed=0)
    assert drawn[0] == {}
    assert all(list(drawn).count(fields) == 1 for fields in drawn)
    assert {"turning": "asl", "t_mid": 0.9} not in drawn  # refused by OmniDrop
    assert {"diversity": 0.5, "t_mid": 0.9} in drawn
    assert len(drawn) == 6
    stages = {"stages": ((0.1, 0.35, 0.6), (0.22, 0.5, 0.75))}  # 0.2 cannot begin so late
    assert Grid("pyramiddrop", stages, (0.2,), 28).draw(9, 0) == [
        {},
        {"stages": (0.1, 0.35, 0.6)},
    ]


def test_neighbours_are_one_step_away():
    grid = Grid("omnidrop", RANGES, (0.3,), 28)
    near_default = grid.neighbours({})
    assert near_default == [
        {"beta": 10.0},
        {"beta": 40.0},
        {"diversity": 0.0},
        {"diversity": 0.4},
    ]
    assert {"beta": 40.0} not in grid.neighbours({"beta": 5.0})


def test_values_to_try():
    assert set(ranges_of("omnidrop")) >= {"entry_ratio", "t_mid", "beta", "diversity"}
    assert ranges_of("fastv", {"after": (1, 2)}) == {"after": (1, 2)}
    assert set(ranges_of("omnidrop", {"beta": (1.0,)}, only=True)) == {"beta"}
    for name, wrong in (("omnidrop", {"betta": (1,)}), ("omnidrop", {"budget": (0.1,)})):
        with pytest.raises(UsageError, match="cannot be tuned"):
            ranges_of(name, wrong)
    with pytest.raises(UsageError, match="declares nothing to tune"):
        ranges_of("uniform")


@pytest.mark.parametrize(
    "wrong",
    [{"budgets": ()}, {"budgets": (0.0,)}, {"candidates": 1}, {"held_out": 1.0}, {"price": -1.0}],
)
def test_searches_that_cannot_be_meant(wrong):
    with pytest.raises(UsageError):
        Search(**wrong)


def test_standing_and_gain_by_hand():
    a = [Mark(0.9, True, 0.2, 0.3), Mark(0.4, False, 0.4, 0.3), Mark(0.8, True, 0.3, 0.3)]
    b = [Mark(0.5, True, 0.2, 0.3), Mark(0.6, True, 0.4, 0.3), Mark(0.1, False, 0.3, 0.3)]
    one = standing(a)
    assert (one.score, one.accuracy, one.asked) == (pytest.approx(0.7), pytest.approx(2 / 3), 3)
    assert one.flops == pytest.approx(0.3)
    assert one.low < 2 / 3 < one.high
    apart = gain(a, b, ["x", "x", "y"])
    assert apart.accuracy == 0.0
    assert apart.score == pytest.approx(0.3)
    assert apart.p == 1.0
    assert apart.score_low <= 0.3 <= apart.score_high


def write(path: Path, **changes: Any) -> Path:
    document = {
        "schema": "omnidrop.preset/1",
        "method": "omnidrop",
        "budgets": [0.3, 0.2],
        "fields": {"beta": 10.0},
        "made": {"by": "hand"},
    }
    found = {k: v for k, v in (document | changes).items() if v is not ...}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_a_preset_file_is_read(tmp_path):
    preset = read_preset(write(tmp_path / "p.json"))
    assert preset.at() == OmniDrop(budget=0.3, beta=10.0)
    assert preset.at(0.5, diversity=0.0) == OmniDrop(budget=0.5, beta=10.0, diversity=0.0)
    assert (
        write(tmp_path / "q.json", **preset.document()).read_text()
        == (tmp_path / "p.json").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "omnidrop.preset/2"}, "no preset"),
        ({"schema": ...}, "no preset"),
        ({"method": "nothing"}, "no method 'nothing'"),
        ({"method": 3}, "names no method"),
        ({"fields": {"betta": 1}}, "no setting 'betta'"),
        ({"fields": {"beta": -1}}, "beta cannot be"),
        ({"fields": {"budget": 0.2}}, "without a budget"),
        ({"fields": ["beta"]}, "must be an object"),
        ({"budgets": []}, "no list of budgets"),
        ({"budgets": [2]}, "cannot be kept"),
        ({"budgets": ["half"]}, "cannot be kept"),
        ({"extra": 1}, "has no 'extra'"),
    ],
)
def test_a_wrong_preset_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "p.json", **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_preset(path)
    assert caught.value.path == path


def test_what_is_no_preset_at_all(tmp_path):
    path = tmp_path / "p.json"
    for content in (b"not json", b"[1]", b"\xff\xfe", b"{}" + b" " * (1 << 21)):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            read_preset(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_preset(tmp_path / "missing.json")


def marks(scores: list[float], flops: float = 0.3) -> list[Mark]:
    return [Mark(score, score > 0.5, flops, 0.3) for score in scores]


def test_a_gain_that_may_be_chance_is_not_preferred(questions):
    """Held out, it is better by two points on average, and by no means on every clip."""
    search = Search((0.3,), candidates=2)
    held_clips = sorted({item.video.name for item in split(questions, search)[1]})

    def score(clip, question, method):
        if method == OmniDrop(budget=method.budget):
            return 0.5
        if clip not in held_clips:
            return 0.6
        return 0.52 + (0.3 if held_clips.index(clip) % 2 else -0.3)

    ranges = {"diversity": (0.0, 0.2)}
    found = calibrate(Model(score), questions, search=search, ranges=ranges)
    assert found.best == {"diversity": 0.0}
    held = found.held_out.gain
    assert held.value_low < 0.0 < held.value_high
    assert not found.better
    assert found.preset.fields == {}


def test_too_few_questions_prefer_nothing(questions):
    few = questions.part(questions.items[: 4 * 8])  # of eight clips three are held out
    found = calibrate(Model(near), few, search=Search((0.3,), candidates=6), ranges=RANGES)
    assert found.held_out.gain.value_low > 0.0
    assert "12 questions about 3 clips are held out" in too_few(found.held_out)
    assert not found.better
    assert found.preset.made["kept"] == "defaults"
    assert too_few((20, 6)) is None
    assert too_few((19, 6)) is not None
    assert too_few((20, 5)) is not None


def test_how_many_questions_a_gain_needs():
    clips = [f"{i}" for i in range(40)]
    better = gain(marks([0.9, 0.4] * 20), marks([0.6, 0.6] * 20), clips)
    assert better.value == pytest.approx(0.05)
    assert better.value_low < 0.0
    needed = better.questions_needed(40)
    assert 80 < needed < 110, "a half-width of about 0.0775 must become 0.05"
    assert gain(marks([0.5] * 40), marks([0.6] * 40), clips).questions_needed(40) is None
    assert gain(marks([0.9] * 40), marks([0.6] * 40), clips).questions_needed(40) == 20


def test_what_is_cheaper_at_the_same_answers_is_better():
    clips = [f"{i}" for i in range(40)]
    cheaper = gain(marks([0.9] * 40, flops=0.2), marks([0.9] * 40, flops=0.4), clips, price=0.1)
    assert cheaper.value_low == pytest.approx(0.02)
    assert cheaper.score == 0.0


def test_questions_outside_are_left_out(questions):
    world = World({}, frozenset(["is", "it", "0", "1", "2", "yes", "no"]), (5, 10), 20, "plain")
    model = Model(near)
    model.world = model.adapter.world = world
    found = calibrate(model, questions, search=Search((0.3,), candidates=6), ranges=RANGES)
    assert found.outside == 15
    assert not [entry for entry in model.log if entry[0] == "ask" and "3" in entry[2]]
    every = calibrate(
        Model(near), questions, search=Search((0.3,), candidates=6), ranges=RANGES,
        options=RunOptions(anyway=True),
    )  # fmt: skip
    assert every.outside == 0
    model.adapter.world = World({}, frozenset({"nothing"}), (5, 10), 20, "plain")
    with pytest.raises(OutsideError):
        calibrate(model, questions, search=Search((0.3,), candidates=6), ranges=RANGES)


def test_a_model_that_guesses_is_seen(questions):
    search = Search((0.3,), candidates=6)
    assert not calibrate(Model(near), questions, search=search, ranges=RANGES).train.guessing
    blind = Model(lambda clip, question, method: 0.4 + 0.2 * (int(question[-2]) % 2))
    found = calibrate(blind, questions, search=search, ranges=RANGES).train
    assert found.chance == 0.5
    assert found.guessing
