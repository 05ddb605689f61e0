"""A batch from rows to a file of answers.

    from omnidrop.batch.run import RunOptions, run
    from omnidrop.batch.rows import read_rows

    tally = run(read_rows(Path("questions.csv")), Path("answers.jsonl"), RunOptions())
    print(tally.answered, tally.causes)

Every row ends up in the file once, answered or failed, however often the run is stopped, killed or
started again: rows that the file holds are not asked, and a line is written whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks
from omnidrop.batch.keys import Setup
from omnidrop.batch.output import DONE, Answers, AnswersFile, Shard
from omnidrop.batch.ray import RayCrew, RayOptions
from omnidrop.batch.records import USUAL, Keys, Record, check_fields, chosen, is_failure
from omnidrop.batch.rows import Row, by_clip
from omnidrop.batch.workers import Crew
from omnidrop.begun import Begun
from omnidrop.errors import MediaError, ModelError, UsageError

#: Rows of one clip and span, and their keys by id.
Group = tuple[Sequence[Row], dict[str, Keys]]

#: Exit codes of failures that asking again does not mend.
_LASTING = (UsageError.exit_code, MediaError.exit_code, ModelError.exit_code)


@dataclass(frozen=True)
class RunOptions:
    """How a batch is run.

    Attributes
    ----------
    answer : AnswerOptions
    fields : tuple of str
        Of `omnidrop.batch.records.FIELDS`, or ("all",).
    retry : int
        How often a row is asked again that failed, at the end of the run. Above 0, rows that failed
        in an earlier run are asked again too.
    fail_fast : bool
        Whether the first row that fails ends the run.
    shard : Shard or None
        Ask the rows of some of the clips only.
    workers : int
        Processes that answer, each with a model of its own; 0 for this process.
    ray : RayOptions or None
        A cluster that answers, in place of this machine's processes.
    """

    answer: AnswerOptions = field(default_factory=AnswerOptions)
    fields: tuple[str, ...] = USUAL
    retry: int = 0
    fail_fast: bool = False
    shard: Shard | None = None
    workers: int = 0
    ray: RayOptions | None = None

    def __post_init__(self) -> None:
        check_fields(self.fields)
        for name in ("retry", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or more, not {getattr(self, name)}.")


@dataclass
class Tally:
    """What a run has done so far.

    Attributes
    ----------
    total : int
        Rows that the run is about; those of other shards are not.
    answered, failed : int
        In this run.
    before, failed_before : int
        Found in the file: answered, and failed.
    causes : Counter
        Of failures, those found in the file included.
    """

    total: int = 0
    answered: int = 0
    failed: int = 0
    before: int = 0
    failed_before: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Rows that are in the file."""
        return self.answered + self.failed + self.before + self.failed_before

    @property
    def asked(self) -> int:
        """Rows that were written in this run."""
        return self.answered + self.failed


@dataclass(frozen=True)
class RunHooks:
    """What a run tells.

    Attributes
    ----------
    answer : Hooks
        Of an answerer in this process.
    on_record : callable or None
        Called with the tally, the row and its whole record once it is written.
    on_asked : callable or None
        Called with each row that a process begins.
    on_file : callable or None
        Called with the file of answers before the first row, for what there is to say about it.
    start_worker : callable or None
        Called first in each process, which must be able to import it.
    """

    answer: Hooks = field(default_factory=Hooks)
    on_record: Callable[[Tally, Row, Record], None] | None = None
    on_asked: Callable[[Row], None] | None = None
    on_file: Callable[[AnswersFile], None] | None = None
    start_worker: Callable[[], None] | None = None


def run(
    rows: Sequence[Row],
    out: Path,
    options: RunOptions | None = None,
    hooks: RunHooks | None = None,
    *,
    tally: Tally | None = None,
) -> Tally:
    """Answer rows into a file; those that it holds are not asked again.

    Parameters
    ----------
    rows : sequence of Row
        Their ids are unique.
    out : Path
        JSONL; made, or added to. Shards have files of their own, see `Shard.output`.
    options : RunOptions, optional
    hooks : RunHooks, optional
    tally : Tally, optional
        Counted in while the run goes on, to be read if it is interrupted.

    Raises
    ------
    UsageError
        If another process writes to the file, or it holds answers of other settings.
    OutputError
        If it cannot be written; what was written stays.
    OmniDropError
        If the model cannot be loaded.
    """
    options = options or RunOptions()
    hooks = hooks or RunHooks()
    with AnswersFile(out, [row.id for row in rows], options.shard) as answers:
        if hooks.on_file is not None:
            hooks.on_file(answers)
        with Begun(answers.path.parent, f".{answers.path.name}.begun") as begun:
            own = replace(hooks, answer=replace(hooks.answer, begun=begun))
            return run_to(rows, answers, options, own, tally=tally)


def run_to(
    rows: Sequence[Row],
    answers: Answers,
    options: RunOptions,
    hooks: RunHooks | None = None,
    *,
    tally: Tally | None = None,
) -> Tally:
    """Answer rows into anything that takes records; see `run`."""
    job = _Job(answers, options, hooks or RunHooks(), tally if tally is not None else Tally())
    job.run(rows)
    return job.tally


class _Job:
    def __init__(
        self, answers: Answers, options: RunOptions, hooks: RunHooks, tally: Tally
    ) -> None:
        self.answers, self.options, self.hooks, self.tally = answers, options, hooks, tally
        self.rows: dict[str, Row] = {}
        self.held: dict[str, Record] = {}
        own = hooks.answer
        if own.on_row is None and hooks.on_asked is not None:
            own = replace(own, on_row=hooks.on_asked)
        self.answerer = Answerer(options.answer, own)

    def run(self, rows: Sequence[Row]) -> None:
        groups = by_clip(rows)
        if self.options.shard is not None:
            clips = dict.fromkeys(row.clip for row in rows)
            place = {clip: number for number, clip in enumerate(clips)}
            groups = [g for g in groups if self.options.shard.has(place[g[0].clip])]
        self.rows = {row.id: row for group in groups for row in group}
        self.tally.total += len(self.rows)
        self.answers.check(self._setup())
        left = self._left(groups)
        first = next(left, None)
        if first is None:
            return
        with self._answering() as answering:
            retries = self.options.retry
            if not self._take(answering.answer_clips(chain([first], left)), hold=retries > 0):
                return
            while self.held and retries:
                retries -= 1
                if not self._take(answering.answer_clips(self._again()), hold=retries > 0):
                    return

    def _setup(self) -> Setup:
        """Return the settings of the run; where others answer, the model is found here, too."""
        elsewhere = self.options.workers > 0 or self.options.ray is not None
        return self.answerer.find_setup(download=elsewhere)

    @contextmanager
    def _answering(self) -> Iterator[Answerer | Crew | RayCrew]:
        options, hooks = self.options, self.hooks
        if options.ray is not None:
            with RayCrew(options.answer, options.ray, start=hooks.start_worker) as actors:
                yield actors
            return
        if not options.workers:
            yield self.answerer
            return
        with Crew(
            options.answer, options.workers, on_row=hooks.on_asked, start=hooks.start_worker
        ) as crew:
            yield crew

    def _left(self, groups: Iterable[Sequence[Row]]) -> Iterator[Group]:
        """Yield the groups with the rows that are to be asked; the clips' files are read."""
        tally = self.tally
        for group in groups:
            keys = self.answerer.keys(group)
            left = []
            for row in group:
                state = self.answers.state(row.id, keys[row.id])
                if state is None or (state != DONE and self.options.retry):
                    left.append(row)
                elif state == DONE:
                    tally.before += 1
                else:
                    tally.failed_before += 1
                    tally.causes[state] += 1
            if left:
                yield left, keys

    def _again(self) -> list[Group]:
        """Return the rows that are held back because they failed, to be asked again."""
        keys = {name: Keys(record["key"], record["setup"]) for name, record in self.held.items()}
        groups = by_clip(self.rows[name] for name in self.held)
        return [(group, {row.id: keys[row.id] for row in group}) for group in groups]

    def _take(self, records: Iterator[Record], *, hold: bool) -> bool:
        """Write records; return False if the run is to end.

        Parameters
        ----------
        records : iterator of dict
        hold : bool
            Hold failures back that may pass; they are asked again.
        """
        with closing(records):  # type: ignore[type-var]
            for record in records:
                if hold and is_failure(record) and record["exit_code"] not in _LASTING:
                    self.held[record["id"]] = record
                    continue
                self.held.pop(record["id"], None)
                self._write(record)
                if self.options.fail_fast and is_failure(record):
                    return False
        return True

    def _write(self, record: Record) -> None:
        row, tally = self.rows[record["id"]], self.tally
        self.answers.add(chosen(record, row.extra, self.options.fields))
        if is_failure(record):
            tally.failed += 1
            tally.causes[record["cause"]] += 1
        else:
            tally.answered += 1
        if self.hooks.on_record is not None:
            self.hooks.on_record(tally, row, record)
