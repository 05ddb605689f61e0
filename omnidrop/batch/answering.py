"""Answers rows, clip by clip: what a process of any framework runs.

    answerer = Answerer(AnswerOptions(load=LoadOptions(model="3b")))
    for record in answerer.answer(rows):
        ...                              # a dict for each row, answered or failed

An `Answerer` holds settings alone until its first row, so it can be sent to another process
(multiprocessing, Ray, a Slurm job) that loads the model there and keeps it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.batch.ahead import one_ahead
from omnidrop.batch.keys import Setup, content_of, fingerprint, key_of, plain_fields
from omnidrop.batch.records import Keys, Record, answered, failed
from omnidrop.batch.rows import Row, by_clip
from omnidrop.batch.timeouts import TimeIsUp, out_of_time, time_limit
from omnidrop.begun import Begun
from omnidrop.clip.options import ClipOptions
from omnidrop.errors import ModelError
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.profiling.limits import Limits
from omnidrop.stages import Progress, StageName

if TYPE_CHECKING:
    from omnidrop.clip.clip import Clip
    from omnidrop.clip.read_clip import ReadClip
    from omnidrop.engine.model import Model
    from omnidrop.engine.session import Session
    from omnidrop.models.locations import Location
    from omnidrop.pruning.method import Method
    from omnidrop.recommended import Recommended
    from omnidrop.report.trace import Answer


@dataclass(frozen=True)
class MethodChoice:
    """Which method prunes, by name, so that it can be sent and compared.

    Attributes
    ----------
    name : str or None
        None leaves it to the model.
    budget : float or None
        None is the method's own default; with no name, the model's.
    settings : mapping
        Further fields of the method.
    """

    name: str | None = None
    budget: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: Method) -> MethodChoice:
        """Return the choice of this method with all its settings."""
        settings = method.settings()
        budget = settings.pop("budget", None)
        return cls(method.name, None if method.name == "none" else budget, settings)

    def method(self, recommended: Recommended) -> Method | None:
        """Return the method; None where nothing was chosen, which leaves it to `Session.ask`.

        Raises
        ------
        UsageError
            If there is no such method or setting, or it refuses a value.
        """
        from omnidrop.engine.default import method_of
        from omnidrop.pruning.registry import get_method

        budget = {} if self.budget is None else {"budget": self.budget}
        if self.name is not None:
            return get_method(self.name, **{**self.settings, **budget})
        if self.settings:
            own = {**recommended.settings, "budget": recommended.budget}
            return get_method(recommended.method, **{**own, **budget, **self.settings})
        return None if self.budget is None else method_of(recommended, self.budget)


@dataclass(frozen=True)
class AnswerOptions:
    """How rows are answered: settings alone, so they can be pickled and compared.

    Attributes
    ----------
    load : LoadOptions
        Which model, and how it is loaded.
    method : MethodChoice
    clip : ClipOptions
        How clips are sampled; a row's own span goes before.
    generate : GenerateOptions
    system : str or None
        System prompt; None for the model family's own.
    anyway : bool
        Whether a question is asked that the model is known not to understand.
    limits : Limits or None
        Of time and memory, which choose the budget.
    fit_pixels, fit_fps : bool
        Whether limits may lower the sampling too.
    timeout : float or None
        Seconds that a row may take, reading included; see `omnidrop.batch.timeouts`.
    read_ahead : bool
        Whether the next clip is opened and read while this one is answered.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    method: MethodChoice = field(default_factory=MethodChoice)
    clip: ClipOptions = field(default_factory=ClipOptions)
    generate: GenerateOptions = field(default_factory=GenerateOptions)
    system: str | None = None
    anyway: bool = False
    limits: Limits | None = None
    fit_pixels: bool = False
    fit_fps: bool = False
    timeout: float | None = None
    read_ahead: bool = True


@dataclass(frozen=True)
class Hooks:
    """What an answerer tells while it works; none of it goes to another process.

    Attributes
    ----------
    progress : callable or None
        Called with (stage, done, total).
    on_load : callable or None
        Loads the model, in place of `omnidrop.load`.
    on_download : callable or None
        Called with (stage, done, total) in bytes where a model is downloaded but not loaded.
    on_row : callable or None
        Called with each row before it is asked.
    on_problem : callable or None
        Called inside the handler of every exception; may raise to stop.
    begun : Begun
        Notes which clip is being read.
    """

    progress: Progress | None = None
    on_load: Callable[[LoadOptions], Model] | None = None
    on_download: Progress | None = None
    on_row: Callable[[Row], None] | None = None
    on_problem: Callable[[], None] | None = None
    begun: Begun = field(default_factory=lambda: Begun(None))


class _Opening:
    """The rows of a clip, and the clip, which is opened in a thread of its own.

    That thread is a daemon: where a decoder hangs in it, a row runs out of time, and nothing waits
    for the thread.
    """

    def __init__(
        self, rows: Sequence[Row], keys: dict[str, Keys], open_clip: Callable[[], Clip]
    ) -> None:
        self.rows, self.keys = rows, keys
        self._open = open_clip
        self._clip: Clip | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="omnidrop-open", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._clip = self._open()
        except BaseException as problem:  # raised by `clip`
            self._problem = problem

    def clip(self) -> Clip:
        """Wait for the clip, or raise what it could not be opened for."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._clip is not None
        return self._clip

    def close(self) -> None:
        """Close the clip, if it is open by now."""
        if self._clip is not None:
            self._clip.close()


class Answerer:
    """Answers rows with one model, which is loaded at the first row.

    Parameters
    ----------
    options : AnswerOptions
    hooks : Hooks, optional
    model : Model, optional
        One that is loaded already; `options.load` is then not used.

    Notes
    -----
    Pickling keeps the options alone: the copy loads a model of its own.
    """

    def __init__(
        self, options: AnswerOptions, hooks: Hooks | None = None, *, model: Model | None = None
    ) -> None:
        self.options = options
        self.hooks = hooks or Hooks()
        self._model = model
        self._setup: Setup | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["options"])  # type: ignore[misc]

    @property
    def model(self) -> Model:
        """The model; loaded when it is first asked for."""
        if self._model is None:
            import omnidrop

            self._model = (self.hooks.on_load or omnidrop.load)(self.options.load)
        return self._model

    @property
    def setup(self) -> Setup:
        """Settings that all records share."""
        return self.find_setup()

    def find_setup(self, *, download: bool = False) -> Setup:
        """Return the settings that all records share.

        Parameters
        ----------
        download : bool
            What is done if the model's files are not on this machine: download them, or load the
            model, which downloads it too.
        """
        if self._setup is None:
            place = self._located(download) if self._model is None else None
            self._setup = setup_of(self.options, place, lambda: self.model)
        return self._setup

    def _located(self, download: bool) -> Location | None:
        """Return where the model's files are; None if they are not on this machine."""
        from omnidrop.models.locations import find

        load = self.options.load
        try:
            return find(
                load.model,
                offline=load.offline or not download,
                progress=self.hooks.on_download,
            )
        except ModelError:
            if download:
                raise
            return None

    def keys(self, rows: Sequence[Row]) -> dict[str, Keys]:
        """Return the keys of rows of one clip by their ids; the clip's file is read for them."""
        content = content_of(rows[0].clip)
        return {row.id: Keys(key_of(row, content), self.setup.key) for row in rows}

    def answer(self, rows: Iterable[Row]) -> Iterator[Record]:
        """Answer rows; those of a clip share its encoding.

        Parameters
        ----------
        rows : iterable of Row
            Read to its end before the first is asked.

        Yields
        ------
        dict
            One for each row, clip by clip in the order in which the clips first appear: plain
            values, ready for JSON. `schema` is `omnidrop.answer/…` with the fields of
            `Answer.to_dict`, or `omnidrop.error/1` with `error`, `cause` and `exit_code`; both
            have `id`, `key`, `setup`, `clip`, `start`, `end`, `question`, `seconds` and the row's
            further columns.

        Raises
        ------
        OmniDropError
            What the model cannot be loaded for; what is wrong with a row is in its record.
        """
        return self.answer_clips((group, self.keys(group)) for group in by_clip(rows))

    def answer_clips(
        self, groups: Iterable[tuple[Sequence[Row], dict[str, Keys]]]
    ) -> Iterator[Record]:
        """Answer groups of rows, each of one clip and span.

        Parameters
        ----------
        groups : iterable of (sequence of Row, dict)
            Rows, and their `keys` by id. Taken one ahead, in another thread, where
            `AnswerOptions.read_ahead` says so.

        Yields
        ------
        dict
            As `answer`.
        """
        waiting = iter(groups)
        first = next(waiting, None)
        if first is None:
            return
        _ = self.model  # loaded here and not in the thread that opens clips
        self._measure_speed()
        opened = (self._opening(rows, keys) for rows, keys in chain([first], waiting))
        for one in one_ahead(opened, self._may_read_ahead):
            yield from self._answered(one)

    def answer_read(
        self, rows: Sequence[Row], keys: dict[str, Keys], read: ReadClip | Exception | None
    ) -> Iterator[Record]:
        """Answer rows of one clip and span that another process has read.

        Parameters
        ----------
        rows : sequence of Row
        keys : dict
            Their `keys` by id.
        read : ReadClip, Exception or None
            The clip, or what it could not be opened for; None if it is to be read here.

        Yields
        ------
        dict
            As `answer`.
        """
        _ = self.model
        self._measure_speed()
        yield from self._answered(self._opening(rows, keys, read))

    def _may_read_ahead(self) -> bool:
        return self.options.read_ahead and not self.hooks.begun.has_suspects

    def _measure_speed(self) -> None:
        limits = self.options.limits
        if limits is not None:
            limits.measure(self.model.adapter, self._fitted(), self.hooks.progress)

    def _method(self) -> Method | None:
        return self.options.method.method(self.model.recommended)

    def _fitted(self) -> Method:
        """Return the method whose budget limits choose."""
        from omnidrop.engine.default import method_of

        return self._method() or method_of(self.model.recommended, exact=False)

    def _opening(
        self,
        rows: Sequence[Row],
        keys: dict[str, Keys],
        read: ReadClip | Exception | None = None,
    ) -> _Opening:
        """Begin to open the clip of a group."""
        first, model = rows[0], self.model
        options = first.clip_options(self.options.clip)

        def opened() -> Clip:
            self.hooks.begun.note(*first.span)  # until its rows are done
            if isinstance(read, Exception):
                raise read
            return model.prepare(first.clip if read is None else read, options)

        return _Opening(rows, keys, opened)

    def _session(self, opened: _Opening) -> Session:
        """Return the session of a clip; limits may lower its sampling."""
        options, first = self.options, opened.rows[0]
        span = first.clip_options(options.clip)
        if options.limits is None:
            return self.model.open(opened.clip(), span)
        return options.limits.open(
            self.model,
            opened.clip(),
            first.question,
            self._fitted(),
            clip=span,
            pixels=options.fit_pixels,
            fps=options.fit_fps,
            system=options.system,
        )

    def _answered(self, opened: _Opening) -> Iterator[Record]:
        """Yield the records of a clip's rows.

        A clip that cannot be opened, or that a row runs out of time on before it is encoded, fails
        all rows that are left of it.
        """
        session: Session | None = None
        try:
            for number, row in enumerate(opened.rows):
                began = time.perf_counter()
                try:
                    with time_limit(self.options.timeout):
                        self._tell(row)
                        if session is None:
                            session = self._session(opened)
                            session.reuse = len(opened.rows) > 1
                        answer = self._ask(session, row)
                    record = answered(row, opened.keys[row.id], answer, time.perf_counter() - began)
                except (Exception, TimeIsUp) as problem:
                    self._stop()
                    cause: BaseException = problem
                    is_read = session is not None and session.is_encoded
                    if isinstance(problem, TimeIsUp):
                        cause = out_of_time(self.options.timeout, read=is_read)
                    seconds = time.perf_counter() - began
                    yield failed(row, opened.keys[row.id], cause, seconds)
                    if session is None or (isinstance(problem, TimeIsUp) and not is_read):
                        for rest in opened.rows[number + 1 :]:
                            yield failed(rest, opened.keys[rest.id], cause)
                        return
                else:
                    yield record
                self.hooks.begun.goes_on(*row.span)
        finally:
            self.hooks.begun.forget(*opened.rows[0].span)
            if session is not None:
                session.close()
            opened.close()

    def _tell(self, row: Row) -> None:
        if self.hooks.on_row is not None:
            self.hooks.on_row(row)
        if self.hooks.progress is not None:
            self.hooks.progress(StageName.OPEN, 0, None)

    def _ask(self, session: Session, row: Row) -> Answer:
        options = self.options
        return session.ask(
            row.question,
            method=self._method(),
            choices=row.choices,
            options=options.generate,
            system=options.system,
            on_text=None,
            progress=self.hooks.progress,
            limits=options.limits,
            anyway=options.anyway,
        )

    def _stop(self) -> None:
        if self.hooks.on_problem is not None:
            self.hooks.on_problem()


def setup_of(options: AnswerOptions, place: Location | None, model: Callable[[], Model]) -> Setup:
    """Return the settings that all answers of a run share.

    Parameters
    ----------
    options : AnswerOptions
    place : Location or None
        Where the model's files are.
    model : callable
        Returns the model, loaded; called only where there is no place.
    """
    recommended: Recommended
    from omnidrop.engine.default import method_of

    if place is not None:
        name, recommended = place.name, place.recommended
        folder: Path | None = place.folder
    else:
        loaded = model()
        name, recommended = loaded.info.name, loaded.recommended
        folder = getattr(getattr(loaded, "adapter", None), "folder", None)
    method = options.method.method(recommended)
    runs = method or method_of(recommended)  # or none, where that saves too little
    chosen = {"name": runs.name, **runs.settings(), "default": method is None}
    clip = plain_fields(options.clip)
    for span in ("start", "end"):
        del clip[span]
    return Setup({
        "model": {
            "name": name,
            "files": None if folder is None else fingerprint(folder),
            "dtype": options.load.dtype,
            "quantize": options.load.quantize,
            "positions": options.load.positions,
        },
        "method": chosen,
        "limits": None
        if options.limits is None
        else {
            **plain_fields(options.limits),
            "fit_pixels": options.fit_pixels,
            "fit_fps": options.fit_fps,
        },
        "clip": clip,
        "generate": plain_fields(options.generate),
        "system": options.system,
    })  # fmt: skip
