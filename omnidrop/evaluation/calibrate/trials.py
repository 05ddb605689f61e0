"""Trials of a method's settings on questions: each is run once and its result is stored.

A question with choices is scored by the probability of the right choice, which is smoother than
accuracy; one without by whether the reply is right. Clips are processed one at a time, so that each
is encoded once per pass and only one is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.errors import BudgetError, MediaError, UsageError
from omnidrop.evaluation.items import LETTERS, Item, QuestionSet, Style
from omnidrop.evaluation.records import key_of, plain
from omnidrop.evaluation.runner import RunOptions, seed_of, setup_of, style_of
from omnidrop.evaluation.scoring import answer_options, ask_text, read_reply
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method

SCHEMA = "omnidrop.trials/1"

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """Result of one question with one setting at one budget.

    Attributes
    ----------
    score : float
        Probability of the right choice; 1 or 0 where there are no choices.
    right : bool
    flops : float
        Share of the unpruned prefill's FLOPs.
    realised : float
        Mean over the layers of the share of tokens entering.
    """

    score: float
    right: bool
    flops: float
    realised: float


@dataclass
class Trials:
    """Runs settings of one method and stores the results.

    Parameters
    ----------
    model : Model
    questions : QuestionSet
    method : str
        Name of the method.
    budgets : tuple of float
    options : RunOptions
        Its `score` is ignored.
    path : Path, optional
        File that results are appended to and read from at the start, so that a call can resume.
    on_ask : callable, optional
        Called before every question.
    """

    model: Model
    questions: QuestionSet
    method: str
    budgets: tuple[float, ...]
    options: RunOptions
    path: Path | None = None
    on_ask: Callable[[], None] | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    _marks: dict[tuple[str, float, str], Mark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.style: Style = style_of(self.options, self.questions, self.model)
        setup = setup_of(self.questions, self.model, self.options)
        self._setup = key_of(setup, self.method)
        if self.path is not None and self.path.exists():
            self._marks |= self._read(self.path)

    def make(self, fields: Fields, budget: float) -> Method:
        """Return the method with settings at a budget."""
        return get_method(self.method, **{**fields, "budget": budget})

    def flat(self, fields: Fields, items: Sequence[Item]) -> list[Mark]:
        """Return the results of a setting: question by question, budget after budget."""
        name = key_of(fields)
        return [self._marks[name, budget, item.id] for budget in self.budgets for item in items]

    def ask(self, settings: Sequence[Fields], items: Sequence[Item]) -> list[Fields]:
        """Run what has no result yet; return the settings that no clip refused.

        Raises
        ------
        OmniDropError
            If a clip cannot be read or the model fails; only a budget out of reach is a refusal.
        """
        by_clip: dict[tuple[Path, float | None, float | None], list[Item]] = {}
        for item in items:
            by_clip.setdefault((item.video, item.start, item.end), []).append(item)
        for (video, _, _), asked in by_clip.items():
            left = [
                (fields, budget, item)
                for fields, budget, item in self._every(settings, asked)
                if (key_of(fields), budget, item.id) not in self._marks
            ]
            if left:
                clip = asked[0].clip_options(self.options.clip)
                with self.model.open(video, clip) as session:
                    self._ask_clip(session, left)
        return [fields for fields in settings if key_of(fields) not in self.refusals]

    def _every(
        self, settings: Sequence[Fields], items: Sequence[Item]
    ) -> Iterator[tuple[Fields, float, Item]]:
        for fields in settings:
            for budget in self.budgets:
                for item in items:
                    yield fields, budget, item

    def _ask_clip(self, session: Session, left: list[tuple[Fields, float, Item]]) -> None:
        for fields, budget, item in left:
            name = key_of(fields)
            if self.on_ask is not None:
                self.on_ask()
            if name in self.refusals:
                continue
            try:
                mark = self._ask(session, self.make(fields, budget), item)
            except BudgetError as problem:
                self.refusals[name] = str(problem)
                continue
            self._marks[name, budget, item.id] = mark
            self._write({"fields": name, "budget": budget, "id": self._id(item), **asdict(mark)})

    def _ask(self, session: Session, method: Method, item: Item) -> Mark:
        seed = seed_of(item, self.options.seed)
        choices = answer_options(item, self.style, "logits")
        answer = session.ask(
            ask_text(item, self.style),
            method=method,
            choices=choices,
            options=GenerateOptions(max_new_tokens=self.options.max_new_tokens, seed=seed),
            system=self.options.system,
            reuse=False,  # no other question has the same seed
            anyway=True,  # questions outside were left out before, unless they were asked for
        )
        trace = answer.trace
        if choices:
            place = item.choices.index(item.answer)
            wanted = LETTERS[place] if self.style == "letters" else item.choices[place].strip()
            score = next(choice.probability for choice in answer.choices if choice.text == wanted)
            right = answer.text == wanted
        else:
            right = read_reply(answer.text, item, self.style).right
            score = float(right)
        return Mark(
            score=score,
            right=right,
            flops=trace.flops_prefill / trace.flops_prefill_unpruned,
            realised=trace.realised_budget,
        )

    def _id(self, item: Item) -> str:
        """Return an id that changes with the question and with its file."""
        try:
            about = item.video.stat()
        except OSError as problem:
            raise MediaError(
                f"A clip of the set cannot be read ({problem.strerror}).",
                path=item.video,
                hint="Every clip is needed; leave its questions out or check --videos.",
            ) from problem
        what = (item.id, item.question, item.choices, item.answer, item.start, item.end)
        return key_of(what, str(item.video), about.st_size, about.st_mtime_ns)

    def _write(self, line: dict[str, Any]) -> None:
        if self.path is None:
            return
        text = json.dumps(plain({"schema": SCHEMA, "setup": self._setup, **line}))
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text + "\n")
        except OSError as problem:
            raise UsageError(
                f"Trials cannot be written ({problem.strerror}).",
                path=self.path,
                hint="Make room and run the same command again; it resumes.",
            ) from problem

    def _read(self, path: Path) -> dict[tuple[str, float, str], Mark]:
        """Return the results in a file that belong to this setup; skip a truncated line."""
        known = {self._id(item): item.id for item in self.questions.items}
        found: dict[tuple[str, float, str], Mark] = {}
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if lines[-1]:
            with path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if not isinstance(line, dict) or line.get("schema") != SCHEMA:
                raise UsageError("This file holds no trials.", path=path, hint="Move it away.")
            try:
                if line["setup"] == self._setup and line["id"] in known:
                    mark = Mark(line["score"], line["right"], line["flops"], line["realised"])
                    found[line["fields"], line["budget"], known[line["id"]]] = mark
            except (KeyError, TypeError) as problem:
                raise UsageError(
                    f"A line of trials lacks {problem}.", path=path, hint="Move the file away."
                ) from problem
        return found
