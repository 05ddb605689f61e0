"""One model, one open clip, many questions.

model = load("demo")
with model.open("clip.mp4") as clip:
    print(clip.ask("What instrument plays first?").text)
    print(clip.ask("Which colour is shown last?").text)   # towers and first layers not run again
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from omnidrop.clip.options import ClipOptions
from omnidrop.engine.decode import Generated, generate, score_choices
from omnidrop.engine.encode import Encoded, Features, Progress, encode_clip, encode_features
from omnidrop.engine.prefill import Prefilled, prefill
from omnidrop.engine.prefix import Prefixes
from omnidrop.engine.timing import Meter, reset_device_peak
from omnidrop.engine.trace_builder import Account, build_trace
from omnidrop.errors import MemoryShortError, UsageError
from omnidrop.models.adapter import Adapter, ModelInfo
from omnidrop.models.loading import load_adapter
from omnidrop.models.memory import out_of_memory
from omnidrop.options import DEFAULT_BUDGET, GenerateOptions, LoadOptions
from omnidrop.profiling.fit import fit
from omnidrop.profiling.limits import Limits
from omnidrop.prompt import Prompt, build_prompt, long_position_notice
from omnidrop.pruning.method import Method, Need
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.report.trace import Answer, Choice, Stage

if TYPE_CHECKING:  # ready features need no media library
    from omnidrop.clip.clip import Clip


TOO_BIG = "Lower --max-pixels, --fps or --max-frames, ask about a shorter span, or use --4bit."

DEMO_NOTICE = (
    "This is the demo model: it knows only instruments, shapes and colours. "
    "For real clips: omnidrop ask --model 3b CLIP QUESTION"
)


def load(model: str | LoadOptions | None = None, **settings: object) -> Model:
    """Load a model once, for any number of clips.

    Parameters
    ----------
    model : str or LoadOptions, optional
        A folder, a hub name, an alias ("3b", "7b", "demo") or complete options; None takes a
        cached Qwen2.5-Omni, or the demo model.
    **settings
        Fields of `LoadOptions`: device, dtype, quantize, attention, offline.

    Raises
    ------
    ModelError
        If it cannot be found, is incomplete, or this machine lacks what it needs.
    MemoryShortError
        If the weights would not fit.
    UsageError
        If a setting is unknown.
    """
    if isinstance(model, LoadOptions):
        options = replace(model, **settings) if settings else model  # type: ignore[arg-type]
    else:
        try:
            options = LoadOptions(model=model, **settings)  # type: ignore[arg-type]
        except TypeError as error:
            known = ", ".join(LoadOptions.__dataclass_fields__)
            raise UsageError(f"{error}.", hint=f"load() takes: {known}.") from None
    return Model(load_adapter(options))


class Model:
    """A loaded model.

    Parameters
    ----------
    adapter : Adapter
        What the engine needs of it.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    @property
    def info(self) -> ModelInfo:
        """Name, family, shapes, dtype and device."""
        return self.adapter.info

    def open(
        self,
        path: str | os.PathLike[str] | Clip,
        options: ClipOptions | None = None,
        **settings: object,
    ) -> Session:
        """Open a clip to ask about.

        Parameters
        ----------
        path : path-like or Clip
            A local media file, or one that `omnidrop.open_clip` has opened before the model was
            loaded: it keeps its options and is not probed again.
        options : ClipOptions, optional
            Span, rates and limits; of a path only.
        **settings
            Fields of `ClipOptions`: start, end, fps, max_frames, max_pixels, audio, …

        Raises
        ------
        MediaError
            If it cannot be read.
        UsageError
            If an option cannot be meant.
        """
        from omnidrop.clip.clip import Clip, open_clip

        adapter = self.adapter
        sampling = adapter.video_spec, adapter.audio_spec, adapter.layout.seconds_per_chunk
        if isinstance(path, Clip):
            if options is not None or settings:
                raise UsageError("An opened clip keeps its options.", hint="Give a path instead.")
            clip = path.sampled_for(*sampling)
            return Session(adapter, clip=clip, opened=clip.opening)
        try:
            chosen = replace(options or ClipOptions(), **settings)  # type: ignore[arg-type]
        except TypeError as error:
            known = ", ".join(ClipOptions.__dataclass_fields__)
            raise UsageError(f"{error}.", hint=f"open() takes: {known}.") from None
        video, audio, seconds = sampling
        meter = Meter(adapter.device)
        with meter.stage("open"):
            clip = open_clip(
                path, chosen, video_spec=video, audio_spec=audio, chunk_seconds=seconds
            )
        return Session(adapter, clip=clip, opened=meter.since_start())

    def features(self, features: Features) -> Session:
        """Ask about ready features instead of a file; no media library is needed."""
        return Session(self.adapter, features=features)


class Session:
    """One clip (or ready features) and a model; a context manager.

    The towers run at the first question and their embeddings serve all later ones; so does the
    clip's way through the layers, up to where the question first has a say (`prefixes`).
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        clip: Clip | None = None,
        features: Features | None = None,
        opened: float = 0.0,
    ) -> None:
        self.adapter = adapter
        self.clip = clip
        self._features = features
        self._opened = opened
        self._encoded: Encoded | None = None
        self._stages: tuple[Stage, ...] = ()
        self.prefixes = Prefixes()
        #: Whether later questions may be expected: nothing is kept for them otherwise.
        self.reuse = True

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let the embeddings go."""
        self._encoded = None
        self.prefixes.clear()
        if self.clip is not None:
            self.clip.close()

    def encode(self, progress: Progress | None = None, *, video_attention: bool = False) -> Encoded:
        """Run the towers now, or return what they gave before.

        Parameters
        ----------
        progress : callable, optional
            Told (stage, done, total) as work goes on.
        video_attention : bool
            Also gather the attention that video tokens received, for the methods whose `wants`
            names it. If the towers ran without, they run again.
        """
        return self._encode(Meter(self.adapter.device), progress, video_attention)

    def _encode(self, meter: Meter, progress: Progress | None, video_attention: bool) -> Encoded:
        known = self._encoded
        if known is not None and (
            not video_attention or known.video is None or known.video_attention is not None
        ):
            for stage in self._stages:
                meter.add(stage.name, 0.0, reused=True)
            return known
        self.prefixes.clear()
        if self.clip is not None:
            meter.begin_earlier("open", self._opened)
        with out_of_memory(TOO_BIG):
            if self.clip is not None:
                self._encoded = encode_clip(
                    self.adapter, self.clip, meter, progress, video_attention=video_attention
                )
            else:
                self._encoded = encode_features(
                    self.adapter,
                    self._features or Features(),
                    meter,
                    video_attention=video_attention,
                )
        self._stages = meter.stages()
        return self._encoded

    def ask(
        self,
        question: str,
        *,
        method: Method | None = None,
        choices: Sequence[str] = (),
        options: GenerateOptions | None = None,
        system: str | None = None,
        on_text: Callable[[str], None] | None = None,
        progress: Progress | None = None,
        on_prefill: Callable[[Prefilled], None] | None = None,
        reuse: bool = True,
        limits: Limits | None = None,
    ) -> Answer:
        """Ask one question.

        Parameters
        ----------
        question : str
            In the user's words.
        method : Method, optional
            Default `OmniDrop(budget=0.3)`.
        choices : sequence of str
            When given, the answer is the most probable of them and nothing is generated.
        options : GenerateOptions, optional
        system : str, optional
            System prompt; default the model family's own.
        on_text : callable, optional
            Receives pieces of the answer as they come.
        progress : callable, optional
            Told (stage, done, total).
        on_prefill : callable, optional
            Receives what the prefill gave, before a token is chosen; it must not change it.
        reuse : bool
            Use and leave what questions share in the decoder (`prefixes`). False takes the time a
            first question takes; the answer is the same.
        limits : Limits, optional
            Time and memory from which the method's budget is found; its own is not looked at.

        Returns
        -------
        Answer
            With its Trace.

        Raises
        ------
        UsageError, BudgetError, MediaError, MemoryShortError
            Each names the cause and the remedy.
        """
        method = method or OmniDrop(budget=DEFAULT_BUDGET)
        options = options or GenerateOptions()
        meter = Meter(self.adapter.device)
        reset_device_peak(self.adapter.device)
        encoded = self._encode(meter, progress, Need.VIDEO_ATTENTION in method.wants)
        with out_of_memory(TOO_BIG):
            with meter.stage("prompt"):
                prompt = build_prompt(
                    self.adapter.text, self.adapter.layout, question, encoded.media, system=system
                )
            fitted = None
            if limits is not None:
                with meter.stage("fit"):
                    method, fitted = fit(self.adapter, prompt, method, limits, meter.since_start)
            if progress:
                progress("prefill", 0.0, None)
            prefilled = self._prefill(
                prompt, encoded, method, meter, options.seed, reuse and self.reuse
            )
            kv_bytes = prefilled.cache.bytes()
            if on_prefill is not None:
                on_prefill(prefilled)
            ticks: list[float] = []
            scored: tuple[Choice, ...] = ()
            if choices:
                with meter.stage("choices"):
                    scored = score_choices(self.adapter, prefilled, choices)
                ticks.append(meter.since_start())
                made = Generated((), scored[0].text, "choice", ())
                if on_text:
                    on_text(made.text)
            else:
                with meter.stage("answer"):
                    made = generate(
                        self.adapter,
                        prefilled,
                        options,
                        on_text,
                        lambda: ticks.append(meter.since_start()),
                        meter,
                    )
        notices = list(self.clip.notices) if self.clip is not None else []
        if self.info.demo:
            notices.insert(0, DEMO_NOTICE)
        if notice := long_position_notice(prompt):
            notices.append(notice)
        if note := prefilled.plan.settings.get("note"):
            notices.append(str(note))
        if fitted:
            notices.append(fitted)
        account = Account(
            prompt=prompt,
            prefilled=prefilled,
            method=method,
            options=options,
            kv_bytes=kv_bytes,
            ticks=tuple(ticks),
            notices=tuple(notices),
        )
        trace = build_trace(self.adapter, self.clip, encoded, account, meter, question, system)
        return Answer(
            text=made.text,
            token_ids=made.ids,
            stop=made.stop,
            trace=trace,
            question=question,
            choices=scored,
            logprobs=made.logprobs,
        )

    def _prefill(
        self,
        prompt: Prompt,
        encoded: Encoded,
        method: Method,
        meter: Meter,
        seed: int,
        reuse: bool,
    ) -> Prefilled:
        """Prefill; where memory runs out, once more without what was kept for later questions."""
        run = partial(prefill, self.adapter, prompt, encoded, method, meter, seed=seed)
        if not reuse:
            return run()
        if len(self.prefixes):
            with suppress(MemoryShortError), out_of_memory(TOO_BIG):
                return run(prefixes=self.prefixes)
            self.prefixes.clear()
        return run(prefixes=self.prefixes)

    @property
    def info(self) -> ModelInfo:
        """The model's name, family, shapes, dtype and device."""
        return self.adapter.info
