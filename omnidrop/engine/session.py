"""One model, one open clip, many questions.

model = load("demo")
with model.open("clip.mp4") as clip:
    print(clip.ask("What instrument plays first?").text)
    print(clip.ask("Which colour is shown last?").text)   # reuses embeddings and prefix KV
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from omnidrop.engine import notices
from omnidrop.engine.captured import Steps
from omnidrop.engine.conversation import Conversation, Said, Written, write_prompt
from omnidrop.engine.decode import Token
from omnidrop.engine.default import Chosen, choose, method_of
from omnidrop.engine.encode import (
    Encoded,
    Features,
    encode_clip,
    encode_features,
    media_of,
)
from omnidrop.engine.leave_out import Asked, proven
from omnidrop.engine.memory import HostPeak, reset_device_peak
from omnidrop.engine.prefill import Prefilled, backbone_of, prefill
from omnidrop.engine.prefix import Prefixes
from omnidrop.engine.reply import choose_answer, generate_answer, told
from omnidrop.engine.room import check_room, surely_fits
from omnidrop.engine.sureness import judge
from omnidrop.engine.timing import Meter
from omnidrop.engine.trace_builder import Account, build_trace
from omnidrop.errors import MemoryShortError, OutsideError
from omnidrop.evidence import EvidenceReading
from omnidrop.models.adapter import Adapter, ModelInfo
from omnidrop.models.memory import out_of_memory
from omnidrop.options import GenerateOptions
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method, Need
from omnidrop.report.trace import Answer
from omnidrop.stages import Progress, StageName
from omnidrop.tokens import Prompt

if TYPE_CHECKING:  # precomputed features need no media library
    from omnidrop.clip.clip import Clip

TOO_BIG = "Lower --max-pixels, --fps or --max-frames, ask about a shorter span, or use --4bit."


class BudgetChooser(Protocol):
    """Chooses a method's budget once the prompt is known, such as `omnidrop.Limits`."""

    def choose(
        self, adapter: Adapter, prompt: Prompt, method: Method, elapsed: Callable[[], float]
    ) -> tuple[Method, str]:
        """Return the method with a budget, and a notice about it.

        Parameters
        ----------
        adapter : Adapter
        prompt : Prompt
            Of the encoded clip and the question.
        method : Method
            Its own budget is ignored.
        elapsed : callable
            Returns the seconds that the answer has taken so far.

        Raises
        ------
        BudgetError
            If no budget of the method will do.
        """
        ...


class Session:
    """One clip (or precomputed features) and a model; a context manager.

    The encoders run at the first question, and later questions reuse the embeddings. They also
    reuse the clip's keys, values and hidden states in the layers before the question first takes
    part in the selection (prefix KV reuse, `prefixes`).

    Parameters
    ----------
    adapter : Adapter
    clip : Clip, optional
    features : Features, optional
        In place of a clip.
    notices : sequence of str
        More notices for every answer's Trace.
    steps : Steps, optional
        Keeps the captured decode step; shared by the sessions of a model.
    reading : EvidenceReading, optional
        Which attention tells where an answer came from; default `EvidenceReading.usual`.

    Attributes
    ----------
    prompt : Prompt or None
        Of the latest question.
    reuse : bool
        Whether more questions may follow; if False, nothing is kept for them.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        clip: Clip | None = None,
        features: Features | None = None,
        notices: Sequence[str] = (),
        steps: Steps | None = None,
        reading: EvidenceReading | None = None,
    ) -> None:
        self.adapter = adapter
        self.reading = reading or EvidenceReading.usual(adapter.info.text.layers)
        self.clip = clip
        self.prompt: Prompt | None = None
        self._decoding = steps if steps is not None else Steps()
        self.reuse = True
        self._features = features
        self._further_notices = tuple(notices)
        self._encoded: Encoded | None = None
        self._stages: tuple[str, ...] = ()
        self.prefixes = Prefixes()

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
        """Close the file and free the embeddings."""
        self._encoded = None
        self.prefixes.clear()
        if self.clip is not None:
            self.clip.close()

    @property
    def is_encoded(self) -> bool:
        """Whether the encoders have run, so that the next question reuses the embeddings."""
        return self._encoded is not None

    def conversation(self, turns: Sequence[Answer] = ()) -> Conversation:
        """Start a conversation about the clip, whose questions see the earlier turns.

        Parameters
        ----------
        turns : sequence of Answer
            Turns to go on from, the oldest first.
        """
        return Conversation(self, turns)

    def encode(self, progress: Progress | None = None, *, video_attention: bool = False) -> Encoded:
        """Run the encoders now, or return their earlier result.

        Parameters
        ----------
        progress : callable, optional
            Called with (stage, done, total).
        video_attention : bool
            Also collect the attention that video tokens received, for methods whose `wants` names
            it. If the encoders ran without it, they run again.
        """
        return self._encode(Meter(self.adapter.device), progress, video_attention)

    def _encode(self, meter: Meter, progress: Progress | None, video_attention: bool) -> Encoded:
        known = self._encoded
        if known is not None and (
            not video_attention or known.video is None or known.video_attention is not None
        ):
            for name in self._stages:
                meter.add(name, 0.0, reused=True)
            return known
        self.prefixes.clear()
        if self.clip is not None:
            meter.begin_earlier(StageName.OPEN, self.clip.seconds_to_open)
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
        self._stages = meter.names()
        return self._encoded

    def ask(
        self,
        question: str,
        *,
        earlier: Sequence[Answer | Said] = (),
        method: Method | None = None,
        choices: Sequence[str] = (),
        options: GenerateOptions | None = None,
        system: str | None = None,
        on_text: Callable[[str], None] | None = None,
        progress: Progress | None = None,
        on_prefill: Callable[[Prefilled], None] | None = None,
        reuse: bool = True,
        limits: BudgetChooser | None = None,
        check: bool = False,
        anyway: bool = False,
        evidence: bool = False,
        on_token: Callable[[Token], None] | None = None,
        alive: Callable[[], None] | None = None,
    ) -> Answer:
        """Ask one question.

        Parameters
        ----------
        question : str
            The user's words.
        earlier : sequence of Answer or Said
            Earlier turns that the question follows, the oldest first; see `conversation`.
        method : Method, optional
            Default the one that the model recommends (`Model.recommended`); none where that would
            save less than a tenth of the time to the first token.
        choices : sequence of str
            If given, the answer is the most probable of them and nothing is generated.
        options : GenerateOptions, optional
        system : str, optional
            System prompt; default the model family's own.
        on_text : callable, optional
            Receives the answer piece by piece.
        progress : callable, optional
            Called with (stage, done, total).
        on_prefill : callable, optional
            Receives the result of the prefill before the first token is chosen; must not change it.
        reuse : bool
            Use and store prefixes (`prefixes`). If False, it takes as long as a first question;
            the answer is the same.
        limits : Limits, optional
            Limits of time and memory that choose the method's budget; its own is ignored.
        check : bool
            Also ask with every token kept, and give `Answer.unpruned_text`. Where memory is too
            short for that, a notice says so.
        anyway : bool
            Ask also what lies outside of what the model knows; a notice says so.
        evidence : bool
            Also leave the moments out one by one and ask again; gives `Answer.left_out`.
        on_token : callable, optional
            Receives each generated token before its text.
        alive : callable, optional
            Called before each layer of the prefill and for each token. What it raises ends the
            question; the session stays usable.

        Returns
        -------
        Answer
            With its Trace.

        Raises
        ------
        OutsideError
            If the model's files say what it knows, and the question or the clip lies outside of it.
        UsageError, BudgetError, MediaError, MemoryShortError
            Each names the cause and the remedy.
        """
        outside = self.outside(question, choices)
        if outside is not None and not anyway:
            raise outside
        options = options or GenerateOptions()
        with HostPeak(self.adapter) as memory:
            answer, asked = self._answer(
                question,
                memory,
                earlier=earlier,
                method=method,
                choices=choices,
                options=options,
                system=system,
                on_text=on_text,
                progress=progress,
                on_prefill=on_prefill,
                reuse=reuse,
                limits=limits,
                outside=outside,
                on_token=on_token,
                alive=alive,
            )
        if evidence:
            with out_of_memory(TOO_BIG):
                answer = proven(answer, asked, self._decoding)
        if not check:
            return answer
        again = partial(
            self.ask,
            earlier=earlier,
            choices=choices,
            options=options,
            system=system,
            reuse=reuse,
            anyway=anyway,
            alive=alive,
        )
        return self._checked(answer, again)

    def _answer(
        self,
        question: str,
        memory: HostPeak,
        *,
        earlier: Sequence[Answer | Said],
        method: Method | None,
        choices: Sequence[str],
        options: GenerateOptions,
        system: str | None,
        on_text: Callable[[str], None] | None,
        progress: Progress | None,
        on_prefill: Callable[[Prefilled], None] | None,
        reuse: bool,
        limits: BudgetChooser | None,
        outside: OutsideError | None,
        on_token: Callable[[Token], None] | None,
        alive: Callable[[], None] | None,
    ) -> tuple[Answer, Asked]:
        """Answer as `ask` says; return also what is needed to ask again with moments left out."""
        meter = Meter(self.adapter.device)
        reset_device_peak(self.adapter.device)
        wanted = method or method_of(self.adapter.recommended, exact=limits is None)
        wanted.check_model(backbone_of(self.adapter), self.adapter.info.text.hidden)
        self._check_room(question, wanted, system, limits)
        encoded = self._encode(meter, progress, Need.VIDEO_ATTENTION in wanted.wants)
        with out_of_memory(TOO_BIG):
            written = self._build_prompt(
                question, encoded, system, meter, earlier, options.max_new_tokens
            )
            prompt = written.prompt
            if method is None and limits is None:
                read = self.clip is not None
                chosen = choose(self.adapter, wanted, prompt, encoded, read=read)
            else:
                chosen = self._choose_budget(limits, prompt, wanted, meter)
            method = chosen.method
            if progress:
                progress(StageName.PREFILL, 0.0, None)
            prefilled = self._prefill(
                prompt, encoded, chosen, meter, options.seed, reuse and self.reuse, alive
            )
            kv_bytes = prefilled.cache.bytes()
            if on_prefill is not None:
                on_prefill(prefilled)
            if choices:
                reply = choose_answer(self.adapter, prefilled, choices, on_text, meter)
            else:
                reply = generate_answer(
                    self.adapter,
                    prefilled,
                    options,
                    on_text,
                    meter,
                    self._decoding,
                    told(alive, on_token),
                )
        # Curves are fitted on greedy answers; drawn ones of equal probability are right less often.
        drawn = options.temperature > 0 and not choices
        curves = self.adapter.calibration
        fitted = not drawn and curves is not None and curves.covers(method.name, method.budget)
        sure = judge(reply.made, reply.choices, curves, fitted=fitted)
        missing = notices.missing(question, self.clip, encoded.used)
        doubt = notices.doubt(outside, missing)
        account = Account(
            written=written,
            prefilled=prefilled,
            method=method,
            options=options,
            memory=memory,
            kv_bytes=kv_bytes,
            ticks=reply.ticks,
            notices=(
                *notices.of_answer(self.adapter, self.clip, prompt, prefilled.plan, outside),
                *filter(None, [chosen.notice]),
                *self._further_notices,
                *missing,
                *sure.notices,
                *reply.made.notices,
            ),
            default=chosen.default,
            decode_loop=reply.made.loop,
        )
        trace = build_trace(self.adapter, self.clip, encoded, account, meter, question, system)
        answer = Answer(
            text=reply.made.text,
            token_ids=reply.made.ids,
            stop=reply.made.stop,
            trace=trace,
            question=question,
            choices=reply.choices,
            logprobs=reply.made.logprobs,
            probability=None if doubt else sure.probability,
            probability_source="" if doubt else sure.source,
            doubt=doubt,
            choice_mass=sure.choice_mass,
            thinking=reply.made.thinking,
        )
        return answer, Asked(self.adapter, prompt, encoded, method, options, tuple(choices), alive)

    def _checked(self, answer: Answer, ask: Callable[..., Answer]) -> Answer:
        """Return the answer with the unpruned model's beside it."""
        if not answer.trace.drops:
            return replace(answer, unpruned_text=answer.text)
        try:
            return replace(answer, unpruned_text=ask(answer.question, method=Method()).text)
        except MemoryShortError as error:
            notice = f"With every token it could not be asked: {error.what}"
            notices = (*answer.trace.notices, notice)
            return replace(answer, trace=replace(answer.trace, notices=notices))

    def _check_room(
        self, question: str, method: Method, system: str | None, limits: BudgetChooser | None
    ) -> None:
        """Refuse a clip that cannot be answered about, before it is decoded."""
        if self.clip is None or self._encoded is not None:
            return
        media = media_of(self.clip)
        if surely_fits(self.adapter, media, method.own_layers):
            return
        prompt = build_prompt(
            self.adapter.text, self.adapter.template, question, media, system=system
        )
        counts: tuple[int, ...] = ()
        if limits is None:  # they choose the budget by the memory that is left
            tokens = prompt.tokens.select(prompt.tokens.av)
            counts = method.plan(tokens, self.info.text.layers).counts
        check_room(self.adapter, media, prompt, counts, TOO_BIG, method.own_layers)

    def outside(self, question: str, choices: Sequence[str] = ()) -> OutsideError | None:
        """Return what lies outside of what the model's files say it knows, or None.

        Parameters
        ----------
        question : str
        choices : sequence of str
        """
        world = self.adapter.world
        if world is None or not question.strip():  # an empty question is refused as such
            return None
        return world.check(self.info.name, question, choices, notices.seconds_of(self.clip))

    def _build_prompt(
        self,
        question: str,
        encoded: Encoded,
        system: str | None,
        meter: Meter,
        earlier: Sequence[Answer | Said],
        room: int,
    ) -> Written:
        with meter.stage(StageName.PROMPT):
            written = write_prompt(
                self.adapter, question, encoded.media, system=system, earlier=earlier, room=room
            )
        self.prompt = written.prompt
        return written

    def _choose_budget(
        self, limits: BudgetChooser | None, prompt: Prompt, method: Method, meter: Meter
    ) -> Chosen:
        """Return the method to run, and a notice if limits chose its budget."""
        if limits is None:
            return Chosen(method)
        with meter.stage(StageName.FIT):
            found, notice = limits.choose(self.adapter, prompt, method, meter.since_start_done)
        return Chosen(found, notice=notice)

    def _prefill(
        self,
        prompt: Prompt,
        encoded: Encoded,
        chosen: Chosen,
        meter: Meter,
        seed: int,
        reuse: bool,
        alive: Callable[[], None] | None,
    ) -> Prefilled:
        """Prefill; if memory runs out, free what earlier questions left and try once more."""
        run = partial(
            prefill,
            self.adapter,
            prompt,
            encoded,
            chosen.method,
            meter,
            seed=seed,
            reading=self.reading,
            plan=chosen.plan,
            alive=alive,
        )
        if reuse:
            run = partial(run, prefixes=self.prefixes)
        if len(self._decoding) or (reuse and len(self.prefixes)):
            with suppress(MemoryShortError), out_of_memory(TOO_BIG):
                return run()
            self._decoding.clear()
            if reuse:
                self.prefixes.clear()
        return run()

    @property
    def bytes(self) -> int:
        """Bytes that are kept for later questions: the embeddings and the prefixes."""
        return self.prefixes.bytes + (self._encoded.bytes if self._encoded is not None else 0)

    @property
    def info(self) -> ModelInfo:
        """The model's name, family, shapes, dtype and device."""
        return self.adapter.info
