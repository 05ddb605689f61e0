"""Run a question set: each clip is encoded once, then every method answers at every budget.

The unpruned model always runs as the control. A failure is recorded as such, never as a wrong
answer. A budget that a method cannot reach on a clip is a refusal, not an error.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnidrop.begun import Begun
from omnidrop.clip.clip import ClipOptions
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.errors import BudgetError, OmniDropError, UsageError
from omnidrop.evaluation.items import Item, QuestionSet, Style
from omnidrop.evaluation.records import (
    ANSWERED,
    FAILED,
    REFUSED,
    SCHEMA,
    Folder,
    Record,
    key_of,
)
from omnidrop.evaluation.scoring import Score, answer_options, ask_text, read_choice, read_reply
from omnidrop.models.world import STYLES
from omnidrop.pruning.method import Method, Need
from omnidrop.pruning.registry import get_method
from omnidrop.report.trace import Answer
from omnidrop.stages import StageName

#: Label of the control that keeps every token.
UNPRUNED = "unpruned"


@dataclass(frozen=True)
class Cell:
    """One method at one budget, with its label in tables.

    Attributes
    ----------
    label : str
        Name of the method or of the variant.
    method : Method
    """

    label: str
    method: Method

    @property
    def budget(self) -> float:
        """Return the budget asked for."""
        return float(self.method.budget)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the method's name and every field."""
        return {"name": self.method.name, **self.method.settings()}


@dataclass(frozen=True)
class RunOptions:
    """How the questions are asked.

    Attributes
    ----------
    seed : int
        Each question gets its own seed, derived from this one and its id, the same for all methods.
    score : {"text", "logits"}
    style : {"plain", "words", "letters"} or None
        How questions with choices are put; see `style_of` for the default.
    max_new_tokens : int
        Length limit of a reply.
    system : str or None
        System prompt; default the model family's own.
    clip : ClipOptions
        Sampling; a question's own span takes precedence.
    anyway : bool
        Ask also what lies outside of what the model knows; else it is recorded as an error.
    seeds : int
        How often methods that draw at random answer each question, with a seed of its own each.
    """

    seed: int = 0
    score: Score = "text"
    style: Style | None = None
    max_new_tokens: int = 16
    system: str | None = None
    clip: ClipOptions = field(default_factory=ClipOptions)
    anyway: bool = False
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.score not in ("text", "logits"):
            raise UsageError(f"Unknown score {self.score!r}.", hint="Use text or logits.")
        if self.style not in (None, *STYLES):
            raise UsageError(f"Unknown style {self.style!r}.", hint=f"Use {' or '.join(STYLES)}.")
        if self.seeds < 1:
            raise UsageError(f"seeds must be 1 or more, not {self.seeds}.", hint="Try 3.")


def style_of(options: RunOptions, questions: QuestionSet, model: Model) -> Style:
    """Return how questions with choices are put.

    As asked for, else as the set says, else as the model has learned it, else with letters.
    """
    world = model.adapter.world
    learned: Style = world.choices if world is not None else "letters"
    return options.style or questions.style or learned


@dataclass
class Tally:
    """What a run did.

    Attributes
    ----------
    answered, refused, failed : int
        Questions times cells, in this run.
    before : int
        Done in an earlier run.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    before: int = 0

    @property
    def total(self) -> int:
        """Return how many are done, with any outcome."""
        return self.answered + self.refused + self.failed + self.before


def cells(
    methods: Sequence[str],
    budgets: Sequence[float],
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    variants: Sequence[tuple[str, str, dict[str, Any]]] = (),
) -> tuple[Cell, ...]:
    """Return the unpruned control, then every method and variant at every budget.

    Parameters
    ----------
    methods : sequence of str
        Names; "none" is the control, which always runs.
    budgets : sequence of float
    settings : mapping, optional
        Method name → fields besides the budget.
    variants : sequence of (str, str, mapping), optional
        Label, method name and fields. A variant that sets `budget` runs only at that one, so one
        label can have different settings at each budget.

    Raises
    ------
    UsageError
        If a method, a field or a value is unknown, or a label is used twice.
    """
    settings = settings or {}
    found = [Cell(UNPRUNED, Method())]
    named = [name for name in dict.fromkeys(methods) if name != Method.name]
    for name in settings:
        if name not in named:
            raise UsageError(
                f"A setting is given for {name!r}, which does not run.", hint="Add it to --method."
            )
    for label, name, fields in [*((n, n, settings.get(n, {})) for n in named), *variants]:
        own = [fields["budget"]] if "budget" in fields else list(dict.fromkeys(budgets))
        rest = {key: value for key, value in fields.items() if key != "budget"}
        found += [Cell(label, get_method(name, budget=budget, **rest)) for budget in own]
    taken: set[tuple[str, float]] = set()
    for cell in found:
        reserved = cell.label == Method.name or (cell.label == UNPRUNED and cell is not found[0])
        if reserved or (cell.label, cell.budget) in taken:
            raise UsageError(
                f"The label {cell.label!r} is taken at {cell.budget:g}.",
                hint="Give the variant another.",
            )
        taken.add((cell.label, cell.budget))
    return tuple(found)


#: Options of a clip that the first evaluations did not have. At their default they are left out of
#: a setup, so that those evaluations can be continued.
_LATER = ("square_pixels", "video_track")


def draws(entrants: Sequence[Cell], seeds: int) -> list[tuple[Cell, int]]:
    """Return every cell with the number of its draw; those that do not draw run once."""
    return [(cell, draw) for cell in entrants for draw in range(seeds if cell.method.draws else 1)]


def setup_of(questions: QuestionSet, model: Model, options: RunOptions) -> dict[str, Any]:
    """Return what all records of a run have in common."""
    info = model.info
    usual = ClipOptions()
    clip = {
        key: str(v) if key == "audio_file" and v else v
        for key, v in asdict(options.clip.resolved(model.adapter.video_spec)).items()
        if key not in _LATER or v != getattr(usual, key)
    }
    return {
        "set": questions.name,
        "note": questions.note,
        "style": style_of(options, questions, model),
        "score": options.score,
        "seed": options.seed,
        "max_new_tokens": options.max_new_tokens,
        "system": options.system,
        "clip": clip,
        "apart": [list(pair) for pair in questions.apart],
        "model": {
            "name": info.name,
            "family": info.family,
            "demo": info.demo,
            "dtype": info.dtype,
            "device": info.device,
            "attention": info.attention,
            "quantization": info.quantization,
            "parameters": info.parameters,
            "weights": weights_hash(model),
            **({} if info.positions is None else {"positions": info.positions}),
        },
    }


def weights_hash(model: Model) -> str:
    """Return what identifies a model's weights: the SHA-256 of its first token embeddings."""
    count = min(256, model.info.text.vocab)
    with torch.inference_mode():
        rows = model.adapter.embed(torch.arange(count, device=model.adapter.device))
    return hashlib.sha256(rows.float().cpu().numpy().tobytes()).hexdigest()[:16]


def seed_of(item: Item, base: int) -> int:
    """Return a question's own seed: the same for every method and place in the set."""
    return (base + zlib.crc32(item.id.encode())) % (1 << 31)


def run(
    model: Model,
    questions: QuestionSet,
    entrants: Sequence[Cell],
    out: Path,
    options: RunOptions | None = None,
    *,
    on_record: Callable[[Tally, Record | None], None] | None = None,
    on_problem: Callable[[], None] | None = None,
) -> Tally:
    """Answer every question by every cell; what `out` already holds is not asked again.

    Parameters
    ----------
    model : Model
    questions : QuestionSet
    entrants : sequence of Cell
        See `cells`.
    out : Path
        Folder of records; created if needed, appended to.
    options : RunOptions, optional
    on_record : callable, optional
        Called after every record, and with None if all questions of a clip were done before.
    on_problem : callable, optional
        Called inside the handler of every exception; may raise to stop.

    Raises
    ------
    UsageError
        If the folder holds another setup, or a label has other settings there.
    """
    options = options or RunOptions()
    setup = setup_of(questions, model, options)
    tally = Tally()
    with Folder(out, setup) as folder, Begun(out, ".begun", keep=True) as begun:
        for cell in entrants:
            folder.check_label(cell.label, cell.budget, cell.settings)
        job = _Job(model, questions, tuple(entrants), options, setup, folder, on_problem, begun)
        for record in job.records(tally):
            if on_record is not None:
                on_record(tally, record)
    return tally


@dataclass(frozen=True)
class _Ask:
    """One question by one cell, with the key of its record."""

    item: Item
    cell: Cell
    key: str
    seed: int
    draw: int = 0


@dataclass
class _Job:
    model: Model
    questions: QuestionSet
    cells: tuple[Cell, ...]
    options: RunOptions
    setup: dict[str, Any]
    folder: Folder
    on_problem: Callable[[], None] | None
    begun: Begun

    def __post_init__(self) -> None:
        self.style: Style = style_of(self.options, self.questions, self.model)
        self.common = key_of(self.setup)

    def records(self, tally: Tally) -> Iterator[Record | None]:
        """Yield each record once it is written; None for each clip that was done before."""
        spans: dict[tuple[Path, float | None, float | None], list[Item]] = {}
        for item in self.questions.items:
            spans.setdefault((item.video, item.start, item.end), []).append(item)
        for (video, start, end), items in spans.items():
            began = time.perf_counter()
            with ExitStack() as stack:
                try:
                    stack.enter_context(self.begun.reading(video, start, end))
                    session = stack.enter_context(self._open(items[0]))
                    identity = session.clip.identity if session.clip is not None else ""
                except Exception as problem:
                    self._stop()
                    asks = self._asks(items, "")
                    yield from self._write((self._failed(ask, problem) for ask in asks), tally)
                    continue
                asks = self._asks(items, identity)
                left = [ask for ask in asks if not self.folder.settled(ask.key)]
                tally.before += len(asks) - len(left)
                if not left:
                    yield None
                    continue
                yield from self._write(self._answers(session, left, began), tally)

    def _open(self, item: Item) -> Session:
        return self.model.open(item.video, item.clip_options(self.options.clip))

    def _asks(self, items: Sequence[Item], identity: str) -> list[_Ask]:
        """Return the clip's questions by every cell, cell by cell."""
        found = []
        for cell, draw in draws(self.cells, self.options.seeds):
            for item in items:
                seed = seed_of(item, self.options.seed + draw)
                what = (item.id, item.question, item.choices, item.answer)
                parts = (cell.label, cell.settings, what, identity or str(item.video))
                key = key_of(self.common, *parts, *([draw] if draw else []))
                found.append(_Ask(item, cell, key, seed, draw))
        return found

    def _write(self, made: Iterable[Record], tally: Tally) -> Iterator[Record]:
        for record in made:
            self.folder.add(record)
            tally.answered += record["status"] == ANSWERED
            tally.refused += record["status"] == REFUSED
            tally.failed += record["status"] == FAILED
            yield record

    def _answers(self, session: Session, asks: list[_Ask], began: float) -> Iterator[Record]:
        wants = any(Need.VIDEO_ATTENTION in ask.cell.method.wants for ask in asks)
        try:
            session.encode(video_attention=wants)
        except Exception as problem:
            self._stop()
            yield from (self._failed(ask, problem) for ask in asks)
            return
        clip_seconds = time.perf_counter() - began
        refused: dict[Cell, BudgetError] = {}
        for ask in asks:
            if ask.cell in refused:  # a plan depends on clip and model, not on the question
                yield self._refused(ask, refused[ask.cell])
                continue
            try:
                yield self._answered(ask, self._ask(session, ask), clip_seconds)
            except BudgetError as problem:
                refused[ask.cell] = problem
                yield self._refused(ask, problem)
            except Exception as problem:
                self._stop()
                yield self._failed(ask, problem)

    def _ask(self, session: Session, ask: _Ask) -> Answer:
        # Asked about the question alone: the words around it are ours.
        outside = session.outside(ask.item.question, ask.item.choices)
        if outside is not None and not self.options.anyway:
            raise outside
        return session.ask(
            ask_text(ask.item, self.style),
            method=ask.cell.method,
            choices=answer_options(ask.item, self.style, self.options.score),
            options=GenerateOptions(max_new_tokens=self.options.max_new_tokens, seed=ask.seed),
            system=self.options.system,
            reuse=False,  # every prefill is timed in full
            anyway=True,
        )

    def _stop(self) -> None:
        if self.on_problem is not None:
            self.on_problem()

    def _record(self, ask: _Ask, status: str, method: dict[str, Any]) -> Record:
        item = ask.item
        return {
            "schema": SCHEMA,
            "key": ask.key,
            "status": status,
            "set": self.questions.name,
            "id": item.id,
            "video": item.video.name,
            "source": self._source(item.video),
            "category": item.category,
            "groups": dict(item.groups),
            "question": item.question,
            "label": ask.cell.label,
            "asked": ask.cell.budget,
            "method": method,
            "seed": ask.seed,
            "draw": ask.draw,
        }

    def _source(self, video: Path) -> str:
        """Return what identifies a file, whatever span of it is asked about."""
        folder = self.questions.source.parent
        return key_of(video.relative_to(folder) if video.is_relative_to(folder) else video)

    def _refused(self, ask: _Ask, problem: BudgetError) -> Record:
        record = self._record(ask, REFUSED, ask.cell.settings)
        return record | {"reachable": problem.reachable, "message": str(problem)}

    def _failed(self, ask: _Ask, problem: Exception) -> Record:
        code = problem.exit_code if isinstance(problem, OmniDropError) else 1
        record = self._record(ask, FAILED, ask.cell.settings)
        return record | {
            "error": type(problem).__name__,
            "message": str(problem),
            "exit_code": code,
        }

    def _answered(self, ask: _Ask, answer: Answer, clip_seconds: float) -> Record:
        trace, item = answer.trace, ask.item
        seconds = {stage.name: round(stage.seconds, 6) for stage in trace.stages}
        reading = (read_choice if answer.choices else read_reply)(answer.text, item, self.style)
        record = self._record(ask, ANSWERED, trace.method)
        return record | {
            "clip": trace.clip.get("identity"),
            "reply": answer.text,
            "said": reading.said,
            "answer": item.answer,
            "chance": 1 / len(item.choices) if item.choices else 0.0,
            "right": reading.right,
            "probability": answer.choices[0].probability if answer.choices else None,
            "realised": round(trace.realised_budget, 6),
            "kept": {"audio": trace.kept_audio, "video": trace.kept_video},
            "tokens": {
                "text": trace.text_tokens,
                "audio": trace.audio_tokens,
                "video": trace.video_tokens,
            },
            "flops": trace.flops_prefill,
            "flops_unpruned": trace.flops_prefill_unpruned,
            "seconds": {
                "clip": round(clip_seconds, 6),
                "entry": seconds.get(StageName.ENTRY, 0.0),
                "prefill": seconds.get(StageName.PREFILL, 0.0),
                "selection": seconds.get(StageName.SELECTION, 0.0),
                "first_token": round(trace.ttft, 6),
            },
            "kv_bytes": trace.memory.kv_cache,
            "kv_bytes_unpruned": trace.memory.kv_cache_unpruned,
            "peak_bytes": {"host": trace.memory.host, "device": trace.memory.device},
            "model": self.setup["model"]["name"],
            "versions": trace.settings["versions"],
        }
