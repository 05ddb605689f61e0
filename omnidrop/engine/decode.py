"""The token loop: greedy or sampled decoding, streaming, stopping; and scoring of given choices.

On CUDA the steps are those of `omnidrop.engine.captured`. On other devices, and if those fail, a
plain loop launches every kernel for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import torch

from omnidrop.engine.answer_stream import AnswerStream
from omnidrop.engine.cache import KVCache
from omnidrop.engine.captured import Chosen, FixedStep, Steps, ahead, first_line, obstacle
from omnidrop.engine.picking import Draws, Picker
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.timing import Meter
from omnidrop.errors import UsageError
from omnidrop.models.adapter import Adapter
from omnidrop.options import GenerateOptions
from omnidrop.report.trace import Choice
from omnidrop.stages import StageName

#: Notice about an answer that ends before it began.
STILL_THINKING = (
    "The model was still thinking when its tokens ran out, so the answer is empty; "
    "raise --max-new-tokens."
)


@dataclass(frozen=True)
class Token:
    """A token as it is generated.

    Attributes
    ----------
    id : int
    logprob : float
        Log-probability at temperature 1.
    top : tuple of (int, float)
        The most probable tokens at this place and theirs, if `GenerateOptions.top_logprobs` asks.
    thought : bool
        Whether it belongs to what a model thinks before it answers.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    thought: bool


@dataclass(frozen=True)
class Generated:
    """What the token loop generated.

    Attributes
    ----------
    ids : tuple of int
        Generated ids, the stop token excluded.
    text : str
        Of the answer, without thoughts.
    stop : str
        "stop token", "stop sequence" or "max new tokens".
    logprobs : tuple of float
        One per id, if requested.
    logprob : float or None
        Log-probability of the whole answer at temperature 1, the stop token included; None if it
        was cut off before its end.
    loop : str
        How the steps ran: "captured" as a CUDA graph, or "plain: " and why not; "" if nothing was
        generated.
    thinking : str
        What the model thought before it answered.
    notices : tuple of str
        What the user should know about the answer.
    """

    ids: tuple[int, ...]
    text: str
    stop: str
    logprobs: tuple[float, ...]
    loop: str = ""
    logprob: float | None = None
    thinking: str = ""
    notices: tuple[str, ...] = ()


@torch.inference_mode()
def generate(
    adapter: Adapter,
    prefilled: Prefilled,
    options: GenerateOptions,
    on_text: Callable[[str], None] | None = None,
    on_token: Callable[[], None] | None = None,
    meter: Meter | None = None,
    steps: Steps | None = None,
    tell: Callable[[Token], None] | None = None,
) -> Generated:
    """Generate an answer after a prefill.

    Parameters
    ----------
    adapter : Adapter
    prefilled : Prefilled
        Its cache grows.
    options : GenerateOptions
    on_text : callable, optional
        Receives each new piece of the answer's text; pieces joined are the answer.
    on_token : callable, optional
        Called when a token is selected, the stop token included.
    meter : Meter, optional
        Receives the times of the steps (decode) and of turning ids into text (detokenise).
    steps : Steps, optional
        Keeps a captured step for the next answer.
    tell : callable, optional
        Receives each token before its text, the stop token excluded. What it raises ends decoding.
    """
    stage = meter.stage if meter is not None else _untimed
    stream = AnswerStream(adapter.text.decode, adapter.thinking, on_text, options.stop)
    loop = _Loop(adapter, prefilled, options, stage, steps if steps is not None else Steps())
    ids: list[int] = []
    logprobs: list[float] = []
    whole: float | None = None
    stop = "max new tokens"
    with closing(loop.tokens()) as tokens:
        for chosen in tokens:
            if on_token is not None:
                on_token()
            if chosen.token in adapter.stop_ids:
                stop, whole = "stop token", sum(logprobs) + chosen.logprob
                break
            ids.append(chosen.token)
            logprobs.append(chosen.logprob)
            if tell is not None:
                thought = stream.is_thought(chosen.token)
                tell(Token(chosen.token, chosen.logprob, chosen.top, thought))
            with stage(StageName.DETOKENISE):
                stream.push(chosen.token)
            if stream.stopped:
                stop = "stop sequence"
                break
    with stage(StageName.DETOKENISE):
        text = stream.finish()
        thoughts = stream.thoughts
    return Generated(
        tuple(ids),
        text,
        stop,
        tuple(logprobs) if options.logprobs else (),
        loop.mode,
        whole,
        thinking=thoughts,
        notices=(STILL_THINKING,) if stream.inside else (),
    )


class _Loop:
    """Decodes the tokens of one answer.

    Attributes
    ----------
    mode : str
        `Generated.loop`; complete once the loop has ended.
    """

    def __init__(
        self,
        adapter: Adapter,
        prefilled: Prefilled,
        options: GenerateOptions,
        stage: Callable[[str], AbstractContextManager[None]],
        steps: Steps,
    ) -> None:
        self.mode = "plain: one token"
        self._adapter, self._prefilled, self._options = adapter, prefilled, options
        self._stage, self._steps = stage, steps
        self._picker = Picker(options.temperature, options.top_p, options.top_logprobs)
        self._draws = Draws(options.seed)

    def tokens(self) -> Generator[Chosen, None, None]:
        """Yield tokens. Once closed, the cache holds the prompt and every token that was fed."""
        first = self._chosen(self._prefilled.logits, 0)
        yield first
        left = self._options.max_new_tokens - 1
        if not left:
            return
        self.mode = "plain: "
        why = obstacle(self._adapter)
        if why is None:
            step = self._first_step(first, left)
            if step is not None:
                yield from self._ahead(step, left)
                return
        else:
            self.mode += why
        yield from self._plain(first)

    def _plain(self, chosen: Chosen) -> Iterator[Chosen]:
        """Decode after `chosen`, one token at a time."""
        position = self._prefilled.next_position
        for index in range(1, self._options.max_new_tokens):
            with self._stage(StageName.DECODE):
                logits = step(
                    self._adapter, self._prefilled.cache, [chosen.token], position + index - 1
                )[-1]
                chosen = self._chosen(logits, index)
            yield chosen

    def _chosen(self, logits: torch.Tensor, index: int) -> Chosen:
        if self._options.temperature == 0:
            token = logits.argmax(-1, keepdim=True)
        else:
            token = self._picker(logits.cpu(), self._draws(index)).to(logits.device)
        # All in one transfer: a second one would wait for the device again.
        return Chosen.of(self._picker.report(logits, token).tolist())

    def _first_step(self, first: Chosen, left: int) -> FixedStep | None:
        """Launch the first step over fixed buffers; return None if that fails."""
        cache, position = self._prefilled.cache, self._prefilled.next_position
        lengths = cache.lengths
        try:
            fixed = self._steps.take(self._adapter, self._picker)
            fixed.begin(cache, first.token, position, self._draws, 1, left)
            with self._stage(StageName.DECODE):
                fixed.advance()
        except RuntimeError as error:
            cache.rewind(lengths)
            self.mode += first_line(error)
            return None
        return fixed

    def _ahead(self, fixed: FixedStep, left: int) -> Iterator[Chosen]:
        """Yield the tokens of a step that was launched once.

        Then rewind the cache by the steps that ran too far, and keep the step.
        """
        cache = self._prefilled.cache
        # The first step has already appended a token.
        before, fed = [n - 1 for n in cache.lengths], 0
        captured, completed = fixed.captured, False
        try:
            for chosen in ahead(fixed, left, self._stage):
                captured = captured or fixed.captured
                fed += 1
                yield chosen
            completed = True
        except GeneratorExit:
            completed = True
            raise
        finally:
            cache.rewind(tuple(n + fed for n in before))
            fixed.end()
            if completed:
                self._steps.keep(fixed)
            self.mode = "captured" if captured else f"plain: {fixed.failed or 'too few tokens'}"


def _untimed(name: str) -> AbstractContextManager[None]:
    return nullcontext()


@torch.inference_mode()
def step(
    adapter: Adapter, cache: KVCache, ids: Sequence[int], position: int | float
) -> list[torch.Tensor]:
    """Feed tokens after the prompt.

    Parameters
    ----------
    adapter : Adapter
    cache : KVCache
        Grows by `len(ids)` in every layer.
    ids : sequence of int
        Tokens to feed, at consecutive positions.
    position : int or float
        M-RoPE position of the first of them.

    Returns
    -------
    list of Tensor, (V,) float32 each
        Logits after each token fed.
    """
    device = adapter.device
    hidden = adapter.embed(torch.tensor(list(ids), device=device)).unsqueeze(0)
    positions = torch.arange(position, position + len(ids), device=device).expand(3, -1)
    rotary = adapter.rotary(positions)
    for layer in range(adapter.info.text.layers):
        hidden = adapter.layer(layer, hidden, rotary, cache)
    return [adapter.logits(hidden[:, i : i + 1]) for i in range(len(ids))]


@torch.inference_mode()
def score_choices(
    adapter: Adapter, prefilled: Prefilled, choices: Sequence[str]
) -> tuple[Choice, ...]:
    """Score given answers by their logits; the cache is left as it was.

    The log-probability of a choice is that of its tokens followed by the end of the turn, so that
    "organ" and "organ pipe" are both whole answers.

    Returns
    -------
    tuple of Choice
        Most probable first; equal ones in the order given.

    Raises
    ------
    UsageError
        If there are fewer than two different choices, or one is empty.
    """
    texts = [choice.strip() for choice in choices]
    if len(set(texts)) != len(texts) or len(texts) < 2 or not all(texts):
        raise UsageError(
            f"Choices must be at least two different texts, not {list(choices)}.",
            hint="Separate them with commas: --choices piano,guitar,violin",
        )
    first, start = prefilled.logits.log_softmax(-1), prefilled.next_position
    whole = prefilled.cache.lengths
    if closing := _no_thoughts(adapter):
        first = step(adapter, prefilled.cache, closing, start)[-1].log_softmax(-1)
        start += len(closing)
    lengths = prefilled.cache.lengths
    stops = sorted(adapter.stop_ids)
    sums = []
    for text in texts:
        ids = adapter.text.encode(text)[0]
        after = step(adapter, prefilled.cache, ids, start)
        prefilled.cache.rewind(lengths)
        rows = [first, *(row.log_softmax(-1) for row in after)]
        total = sum(float(row[i]) for row, i in zip(rows, ids, strict=False))
        sums.append(total + float(rows[-1][stops].logsumexp(-1)))
    prefilled.cache.rewind(whole)
    shares = torch.tensor(sums, dtype=torch.float64).softmax(-1).tolist()
    order = sorted(range(len(texts)), key=lambda i: -sums[i])
    return tuple(Choice(texts[i], shares[i], sums[i]) for i in order)


def _no_thoughts(adapter: Adapter) -> list[int]:
    """Return the ids that end a thought which the prompt has begun, so that the answer follows."""
    marks = adapter.thinking
    if marks is None or not marks.opened:
        return []
    pause = adapter.text.encode("\n\n")[0]
    return [*pause, marks.end, *pause]
