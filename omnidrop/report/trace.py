"""The record of an answer, as plain frozen dataclasses; nothing is computed here.

A Trace holds every setting needed to repeat the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = "omnidrop.answer/1"

#: The notice of an answer without a word.
EMPTY = "The model answered with nothing."


@dataclass(frozen=True)
class Stage:
    """One stage of the work.

    Attributes
    ----------
    name : str
        One of `omnidrop.stages.StageName`, or `omnidrop.stages.prefix_stage` for a reused prefix.
    seconds : float
        Seconds spent in it: measured by CUDA events on a GPU, else wall-clock time.
    within : str or None
        Name of the stage that this one is part of (selection is within prefill).
    reused : bool
        True if the result of an earlier question was reused.
    overlapped : bool
        True if it ran in parallel to other stages (decoding during encoding), so that its seconds
        are not part of the sum.
    """

    name: str
    seconds: float
    within: str | None = None
    reused: bool = False
    overlapped: bool = False


@dataclass(frozen=True)
class ChunkTrace:
    """One temporal chunk.

    Attributes
    ----------
    start, end : float
        Seconds from the start of the file.
    audio, video : tuple of int, length L
        Tokens of this chunk entering each layer.
    audio_total, video_total : int
        Tokens before pruning.
    relevance : float or None
        Share of this chunk's surviving tokens in the attention that the evidence is read from
        (`omnidrop.evidence`), without a calibrated reading the question's at layer L // 2; the
        shares of all chunks sum to 1. None if it was not measured.
    """

    start: float
    end: float
    audio: tuple[int, ...]
    video: tuple[int, ...]
    audio_total: int
    video_total: int
    relevance: float | None = None


@dataclass(frozen=True)
class Moment:
    """A part of the clip that the answer came from.

    Attributes
    ----------
    start, end : float
        Seconds from the start of the file.
    share : float
        Share of the evidence that lies in it, 0 to 1; the parts of a whole clip sum to 1.
    """

    start: float
    end: float
    share: float


@dataclass(frozen=True)
class LeftOut:
    """The same question with a moment of the clip left out.

    Attributes
    ----------
    moment : Moment
        What was left out: its audio and video tokens; all others kept their positions.
    text : str
        The answer without it.
    changed : bool
        Whether it is another answer.
    probability : float
        Of the first answer, word for word, without the moment; of choices, its share among them.
    whole : float
        The same with nothing left out.
    """

    moment: Moment
    text: str
    changed: bool
    probability: float
    whole: float


@dataclass(frozen=True)
class Used:
    """What of the clip the model was given.

    Attributes
    ----------
    frames : int
        Frames that were encoded; 0 without video.
    video_seconds : float
        Seconds of the clip that they span.
    audio_seconds : float
        Seconds of audio that were encoded; 0 without audio.
    """

    frames: int = 0
    video_seconds: float = 0.0
    audio_seconds: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Attributes
    ----------
    host : int
        Most of the host's memory that was held at once since the question began: weights, counted
        whole, and everything else of the process.
    device : int or None
        Peak device allocation during the answer; None on the CPU.
    kv_cache : int
        KV cache after prefill.
    kv_cache_unpruned : int
        KV cache at budget 1.0.
    weights : int
        The model's weights, wherever they are.
    mapped : int
        Those that are mapped from the checkpoint's files into the host's memory: the system takes
        such pages back when memory is short, and reads them again.
    measured : str
        How `host` was measured beside the mapped weights: "kernel" (its own highest mark) or
        "samples" (every 10 ms).
    """

    host: int
    device: int | None
    kv_cache: int
    kv_cache_unpruned: int
    weights: int = 0
    mapped: int = 0
    measured: str = ""


@dataclass(frozen=True)
class Trace:
    """How a question was answered, with every setting needed to repeat it.

    Attributes
    ----------
    method : dict
        Name and every field of the method, and what its solver chose (`plan`). Where nobody asked
        for a method, `default` has the model's recommended method and budget, the source of that
        choice, and the share of the time to the first token that dropping saves by arithmetic.
    model : dict
        Name, family, layers, shapes, dtype, device, attention, quantisation, demo (bool).
    clip : dict
        Path, duration, span, true fps, frame size, grid, sampling settings, identity.
    settings : dict
        Question, system prompt, sampling of the answer, seed, versions.
    text_tokens, audio_tokens, video_tokens : int
        Tokens of the prompt before pruning (text includes markers).
    asked_budget, realised_budget : float
    planned : tuple of int, length L
        AV tokens that the schedule planned for each layer.
    kept_audio, kept_video : tuple of int, length L
        AV tokens that entered each layer.
    chunks : tuple of ChunkTrace
    stages : tuple of Stage
    ttft : float
        Seconds from the call to the first token, all stages included.
    tokens_per_second : float or None
        Generated tokens per second after the first; None if only one was generated.
    memory : Memory
    flops_prefill, flops_prefill_unpruned : float
        Analytic FLOPs of the LLM's prefill (`TextShape.prefill_flops`), the layers that a method
        runs before it included (`Method.own_layers`).
    notices : tuple of str
        What the user should know: truncated file, demo model, long positions, …
    decode_loop : str
        How tokens after the first were decoded: "captured" as a CUDA graph, or "plain: " and why
        not; "" if choices were scored.
    survivors : tuple of tuple of int, optional
        Prompt indices of the AV tokens entering each layer; empty unless requested.
    moments : tuple of Moment
        Where the answer came from, the strongest first; empty if that is not known better than by
        chance.
    evidence : dict
        Which attention the moments and `ChunkTrace.relevance` are read from: layers, rows, heads,
        correction, and `source`; and `rate`, how often it meets the evidence with this method and
        budget, beside chance, as measured (`omnidrop.evidence.Rate`); None if not measured.
    used : Used
    load_seconds : float
        Seconds that loading the model took, a download left out: once, before the first question.
        Not part of `stages` and `ttft`.
    warm : bool
        Whether the model had been loaded before, by another process or for another request
        (`omnidrop serve`), so that nobody waited for `load_seconds` now.
    """

    method: dict[str, Any]
    model: dict[str, Any]
    clip: dict[str, Any]
    settings: dict[str, Any]
    text_tokens: int
    audio_tokens: int
    video_tokens: int
    asked_budget: float
    realised_budget: float
    planned: tuple[int, ...]
    kept_audio: tuple[int, ...]
    kept_video: tuple[int, ...]
    chunks: tuple[ChunkTrace, ...]
    stages: tuple[Stage, ...]
    ttft: float
    tokens_per_second: float | None
    memory: Memory
    flops_prefill: float
    flops_prefill_unpruned: float
    notices: tuple[str, ...] = ()
    decode_loop: str = ""
    survivors: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    moments: tuple[Moment, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    used: Used = Used()
    load_seconds: float = 0.0
    warm: bool = False

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.kept_audio)

    @property
    def av_tokens(self) -> int:
        """AV tokens before pruning, N."""
        return self.audio_tokens + self.video_tokens

    @property
    def drops(self) -> bool:
        """Whether any AV token was dropped."""
        return min(self.kept_per_layer, default=self.av_tokens) < self.av_tokens

    @property
    def kept_per_layer(self) -> tuple[int, ...]:
        """AV tokens entering each layer."""
        return tuple(a + v for a, v in zip(self.kept_audio, self.kept_video, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """One given choice and its probability.

    Attributes
    ----------
    text : str
        The choice as given.
    probability : float
        Softmax of `logprob` over the choices.
    logprob : float
        Log-probability of the choice as the whole answer, end of turn included.
    """

    text: str
    probability: float
    logprob: float


@dataclass(frozen=True)
class Answer:
    """The answer to a question, as `ask` returns it.

    Attributes
    ----------
    text : str
        The answer without special tokens and without what the model thought before it.
    token_ids : tuple of int
        Generated ids, those of thoughts included, the stop token excluded.
    stop : str
        Why it ended: "stop token", "max new tokens", "choice".
    trace : Trace
    question : str
    choices : tuple of Choice
        Most probable first; empty unless choices were given.
    logprobs : tuple of float
        Log-probability of each generated token, if requested.
    probability : float or None
        How likely the answer is right, 0 to 1; None if not known. Of choices, the share among them.
    probability_source : str
        Where the probability comes from: "calibrated on ..." or "the model's own".
    doubt : str
        Why the probability is not known for this question, as a part of a sentence: the model does
        not know its words, or it asks about sound that is not there; empty otherwise.
    choice_mass : float or None
        Probability of all given choices together as whole answers; None without choices.
    unpruned_text : str or None
        The answer with every token kept, if it was asked for as a check.
    left_out : tuple of LeftOut
        The question asked again without each of the moments, if that was asked for as a proof.
    thinking : str
        What a thinking model thought before it answered.
    """

    text: str
    token_ids: tuple[int, ...]
    stop: str
    trace: Trace
    question: str = ""
    choices: tuple[Choice, ...] = ()
    logprobs: tuple[float, ...] = ()
    probability: float | None = None
    probability_source: str = ""
    doubt: str = ""
    choice_mass: float | None = None
    unpruned_text: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    thinking: str = ""

    @property
    def hangs_on(self) -> LeftOut | None:
        """The moment that the answer hangs on, by the proof of `left_out`; None if on none alone.

        Without it the answer is another, or less than half as probable; of several such moments it
        is the one without which the answer is least probable.
        """
        telling = [one for one in self.left_out if one.changed or one.probability < one.whole / 2]
        return min(telling, key=lambda one: one.probability, default=None)

    @property
    def checked(self) -> str | None:
        """Whether the unpruned model gives the same answer, as a sentence; None if not asked."""
        if self.unpruned_text is None:
            return None
        if self.unpruned_text.strip() == self.text.strip():
            return "Same answer with every token: yes."
        other = self.unpruned_text.strip() or "nothing"
        return f"Same answer with every token: no (it is: {other})."

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as one JSON document, `schema` first."""
        return {"schema": SCHEMA, **asdict(self)}
