"""Search for the settings that keep most accuracy at a budget; validated on held-out clips.

The clips of a question set are split in two. On the first part, settings are drawn from a grid and
reduced by successive halving: all start on a few questions, and the better half continues with
twice as many. Then the winner's neighbours on the grid compete with it in the same way. The winner
and the defaults then answer the questions of the held-out part. The winner is preferred only if
it is better there beyond doubt: the 95 % interval of the paired difference of the objective lies
above zero, on enough clips and questions for an interval to mean something (`MIN_CLIPS`,
`MIN_QUESTIONS`). Else the defaults are kept.

All settings see the same questions with the same seeds, so differences are paired. The objective
is the mean probability of the right choice (see `trials`) minus `price` times the share of the
unpruned prefill's FLOPs. At one budget FLOPs differ little, so this breaks ties.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import omnidrop
from omnidrop.engine.model import Model
from omnidrop.errors import BudgetError, UsageError
from omnidrop.evaluation.calibrate.grid import DEFAULTS, Grid, Ranges, ranges_of
from omnidrop.evaluation.calibrate.trials import Fields, Mark, Trials
from omnidrop.evaluation.items import Item, QuestionSet
from omnidrop.evaluation.runner import RunOptions, weights_hash
from omnidrop.evaluation.stats import bootstrap, paired, wilson
from omnidrop.pruning.presets import Preset

#: Fewer held-out clips or questions than these prefer nothing: an interval over so few says little.
MIN_CLIPS, MIN_QUESTIONS = 6, 20


@dataclass(frozen=True)
class Search:
    """Options of the search.

    Attributes
    ----------
    budgets : tuple of float
        All share the settings; scores are means over them.
    candidates : int
        Settings drawn at the start, the defaults included.
    held_out : float
        Share of the clips used for validation only.
    price : float
        Accuracy that one unpruned prefill is worth.
    seed : int
        Seed of split and draw.
    """

    budgets: tuple[float, ...] = (0.3,)
    candidates: int = 24
    held_out: float = 0.4
    price: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or not all(0.0 < budget <= 1.0 for budget in self.budgets):
            raise UsageError("A budget is above 0 and up to 1.", hint="Give shares like 0.3,0.2.")
        if self.candidates < 2:
            raise UsageError("One candidate is no search.", hint="Give 2 or more.")
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(
                f"Holding out {self.held_out:g} of the clips leaves one side empty.",
                hint="Give a share between 0 and 1, like 0.4.",
            )
        if not 0.0 <= self.price < math.inf:
            raise UsageError("A price is 0 or more.", hint="0 looks at accuracy alone.")


@dataclass(frozen=True)
class Standing:
    """Results of a setting on some questions, over all budgets.

    Attributes
    ----------
    score : float
        Mean probability of the right choice.
    accuracy, low, high : float
        Share of right answers, and its 95 % interval (Wilson).
    flops : float
        Mean share of the unpruned prefill's FLOPs.
    realised : float
        Mean realised budget.
    asked : int
        Questions times budgets.
    """

    score: float
    accuracy: float
    low: float
    high: float
    flops: float
    realised: float
    asked: int


@dataclass(frozen=True)
class Gain:
    """The chosen setting minus the defaults on the same questions.

    Attributes
    ----------
    accuracy, low, high, p : float
        Difference in accuracy, its 95 % interval (bootstrap over clips), and McNemar's exact
        two-sided p.
    score, score_low, score_high : float
        The same for the probability of the right choice.
    value, value_low, value_high : float
        The same for the objective: that probability minus the price of the FLOPs.
    """

    accuracy: float
    low: float
    high: float
    p: float
    score: float
    score_low: float
    score_high: float
    value: float = 0.0
    value_low: float = 0.0
    value_high: float = 0.0

    def questions_needed(self, questions: int) -> int | None:
        """Return about how many questions a difference of this size needs to be beyond doubt.

        An interval narrows with the root of the number of questions. None if there is no gain.

        Parameters
        ----------
        questions : int
            Of this comparison.
        """
        if self.value <= 0.0:
            return None
        half = (self.value_high - self.value_low) / 2
        return max(math.ceil(questions * (half / self.value) ** 2), MIN_QUESTIONS)


@dataclass(frozen=True)
class Side:
    """One part of the split.

    Attributes
    ----------
    questions, clips : int
    chosen : Standing
    default : Standing or None
        None where the defaults cannot reach a budget.
    gain : Gain or None
    chance : float
        Share that a guess among the choices gets right.
    """

    questions: int
    clips: int
    chosen: Standing
    default: Standing | None
    gain: Gain | None
    chance: float = 0.0

    @property
    def guessing(self) -> bool:
        """Whether chance lies within the accuracy's interval of both, or above it."""
        return all(one.low <= self.chance for one in (self.chosen, self.default) if one is not None)


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration.

    Attributes
    ----------
    method : str
    budgets : tuple of float
    best : mapping
        The settings that won on the first part.
    better : bool
        Whether it beat the defaults on held-out clips beyond doubt; then the preset holds it.
    train, held_out : Side
    tried : tuple of (mapping, Standing)
        Every setting that answered all questions of the first part, best first.
    refused : int
        Settings that could not reach a budget.
    outside : int
        Questions left out because the model's files say that it does not know them.
    preset : Preset
    """

    method: str
    budgets: tuple[float, ...]
    best: Fields
    better: bool
    train: Side
    held_out: Side
    tried: tuple[tuple[Fields, Standing], ...]
    refused: int
    outside: int
    preset: Preset = field(repr=False)


def too_few(held: Side | tuple[int, int]) -> str | None:
    """Return why a held-out part is too small to prefer anything, or None.

    Parameters
    ----------
    held : Side, or tuple of int
        The part, or its numbers of questions and clips.
    """
    questions, clips = (held.questions, held.clips) if isinstance(held, Side) else held
    if clips >= MIN_CLIPS and questions >= MIN_QUESTIONS:
        return None
    return (
        f"{questions} questions about {clips} clips are held out, and fewer than {MIN_QUESTIONS} "
        f"questions or {MIN_CLIPS} clips prefer nothing"
    )


def _known(model: Model, questions: QuestionSet) -> QuestionSet:
    """Return the questions that the model's files say it knows.

    Raises
    ------
    OutsideError
        If there is none.
    """
    world = model.adapter.world
    if world is None:
        return questions
    name = model.info.name
    found = [(item, world.check(name, item.question, item.choices)) for item in questions.items]
    known = [item for item, outside in found if outside is None]
    first = next((outside for _, outside in found if outside is not None), None)
    if not known and first is not None:
        raise first
    return questions.part(known)


def split(questions: QuestionSet, search: Search) -> tuple[list[Item], list[Item]]:
    """Split a set's questions by clip, in a random order of clips.

    Raises
    ------
    UsageError
        If there are fewer than two clips.
    """
    clips = list(questions.videos)
    if len(clips) < 2:
        raise UsageError(
            "Held-out clips need at least two clips.", path=questions.source, hint="Use more."
        )
    random.Random(search.seed).shuffle(clips)
    apart = min(max(round(search.held_out * len(clips)), 1), len(clips) - 1)
    order = {clip: place for place, clip in enumerate(clips)}
    items = sorted(questions.items, key=lambda item: order[item.video])
    held = set(clips[:apart])
    return [i for i in items if i.video not in held], [i for i in items if i.video in held]


def rungs(candidates: int, questions: int) -> list[tuple[int, int]]:
    """Return (candidates, questions) per rung: the first halves, the second doubles."""
    steps = max(1, math.ceil(math.log2(max(candidates, 2))) - 1)
    steps = min(steps, max(1, math.floor(math.log2(max(questions, 1))) + 1))
    return [
        (max(2, math.ceil(candidates / 2**k)), max(1, math.ceil(questions / 2 ** (steps - 1 - k))))
        for k in range(steps)
    ]


def most_asks(ranges: Ranges, train: int, held: int, search: Search) -> int:
    """Return the largest number of questions that a search can ask."""

    def halving(candidates: int, known: int) -> int:
        asked = before = 0
        for alive, questions in rungs(candidates, train):
            asked += (alive + 1 - known) * (questions - before)
            before = questions
        return asked

    grid = math.prod(len(values) for values in ranges.values())
    drawn = min(search.candidates, grid + 1)
    near = sum(min(2, len(values)) for values in ranges.values())
    once = halving(drawn, 0) + halving(near + 1, 1) + 2 * held
    return once * len(search.budgets)


def calibrate(
    model: Model,
    questions: QuestionSet,
    method: str = "omnidrop",
    search: Search | None = None,
    *,
    ranges: Ranges | None = None,
    options: RunOptions | None = None,
    trials: Path | None = None,
    on_ask: Callable[[], None] | None = None,
) -> Calibration:
    """Find settings of a method for a model and budgets.

    Parameters
    ----------
    model : Model
    questions : QuestionSet
        Of at least two clips.
    method : str
    search : Search, optional
    ranges : mapping, optional
        Values to try, by field; the method's own by default (`ranges_of`).
    options : RunOptions, optional
        How questions are asked.
    trials : Path, optional
        File of results; a call that was stopped resumes from it.
    on_ask : callable, optional
        Called after every question.

    Raises
    ------
    UsageError
        If there is nothing to try, or the clips cannot be split.
    BudgetError
        If no setting reaches the budgets.
    """
    search = search or Search()
    values = dict(ranges) if ranges is not None else ranges_of(method)
    options = options or RunOptions()
    given = len(questions.items)
    if not options.anyway:
        questions = _known(model, questions)
    train, held = split(questions, search)
    asking = Trials(model, questions, method, search.budgets, options, trials, on_ask)
    grid = Grid(method, values, search.budgets, model.info.text.layers)
    drawn = grid.draw(search.candidates, search.seed + 1)
    finished = _halve(asking, drawn, train, search)
    near = [finished[0], *grid.neighbours(finished[0])]
    finished += [fields for fields in _halve(asking, near, train, search) if fields not in finished]
    final = _ranked(asking, finished, train, search)
    best = final[0]
    able = asking.ask([DEFAULTS, best], held)
    if best not in able:
        raise BudgetError(f"The settings found are refused on held-out clips: {dict(best)}.")
    sides = [_side(asking, best, DEFAULTS in able, items, search) for items in (train, held)]
    apart = sides[1]
    better = apart.default is None or (
        apart.gain is not None and apart.gain.value_low > 0.0 and not too_few(apart)
    )
    made = {
        "by": f"omnidrop calibrate {omnidrop.__version__}",
        "model": {"name": model.info.name, "layers": model.info.text.layers}
        | {"weights": weights_hash(model)},
        "set": questions.name,
        "seed": search.seed,
        "price": search.price,
        "kept": "found" if better else "defaults",
        "found": dict(best),
        "train": asdict(sides[0]),
        "held_out": asdict(sides[1]),
    }
    return Calibration(
        method=method,
        budgets=search.budgets,
        best=best,
        better=better,
        train=sides[0],
        held_out=sides[1],
        tried=tuple((fields, standing(asking.flat(fields, train))) for fields in final),
        refused=len(asking.refusals),
        outside=given - len(questions.items),
        preset=Preset(method, search.budgets, best if better else DEFAULTS, made),
    )


def standing(marks: Sequence[Mark]) -> Standing:
    """Average marks."""
    count, right = len(marks), sum(mark.right for mark in marks)
    low, high = wilson(right, count)
    return Standing(
        score=sum(mark.score for mark in marks) / count,
        accuracy=right / count,
        low=low,
        high=high,
        flops=sum(mark.flops for mark in marks) / count,
        realised=sum(mark.realised for mark in marks) / count,
        asked=count,
    )


def gain(
    chosen: Sequence[Mark], default: Sequence[Mark], clips: Sequence[object], price: float = 0.0
) -> Gain:
    """Compare two settings' marks on the same questions, in the same order.

    Parameters
    ----------
    chosen, default : sequence of Mark
    clips : sequence
        The clip of each question.
    price : float
        As of `Search`.
    """
    rights = paired([m.right for m in chosen], [m.right for m in default], clips)
    apart = [a.score - b.score for a, b in zip(chosen, default, strict=True)]
    low, high = bootstrap(apart, clips)
    flops = [a.flops - b.flops for a, b in zip(chosen, default, strict=True)]
    values = [score - price * cost for score, cost in zip(apart, flops, strict=True)]
    value_low, value_high = bootstrap(values, clips)
    return Gain(
        accuracy=rights.difference,
        low=rights.low,
        high=rights.high,
        p=rights.p,
        score=sum(apart) / len(apart),
        score_low=low,
        score_high=high,
        value=sum(values) / len(values),
        value_low=value_low,
        value_high=value_high,
    )


def _side(
    asking: Trials, best: Fields, default: bool, items: Sequence[Item], search: Search
) -> Side:
    chosen = asking.flat(best, items)
    usual = asking.flat(DEFAULTS, items) if default else None
    clips = [item.video for _ in asking.budgets for item in items]
    return Side(
        questions=len(items),
        clips=len(set(clips)),
        chosen=standing(chosen),
        default=None if usual is None else standing(usual),
        gain=None if usual is None else gain(chosen, usual, clips, search.price),
        chance=sum(1 / len(i.choices) if i.choices else 0.0 for i in items) / len(items),
    )


def _value(found: Standing, search: Search) -> float:
    return found.score - search.price * found.flops


def _ranked(
    asking: Trials, settings: Sequence[Fields], items: Sequence[Item], search: Search
) -> list[Fields]:
    """Return settings, best first; ties keep their order."""
    return sorted(
        settings, key=lambda fields: -_value(standing(asking.flat(fields, items)), search)
    )


def _halve(
    asking: Trials, settings: Sequence[Fields], train: Sequence[Item], search: Search
) -> list[Fields]:
    """Return the settings that answered all of `train`, best first; the defaults always stay."""
    alive, seen = list(settings), 0
    for count, questions in rungs(len(settings), len(train)):
        if seen:
            alive = _ranked(asking, alive, train[:seen], search)[:count]
        seen = questions
        with_default = alive if DEFAULTS in alive else [*alive, DEFAULTS]
        alive = asking.ask(with_default, train[:seen])
        if not alive:
            reason = next(iter(asking.refusals.values()))
            raise BudgetError(f"No setting tried reaches the budgets. {reason}")
    return _ranked(asking, alive, train, search)
