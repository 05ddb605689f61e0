"""Proof by leaving out: the question asked again without each moment that the answer may hang on.

The moment's audio and video tokens are removed before the method chooses; the others keep their
positions. So the model sees the clip with a hole in it, not another clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from omnidrop.engine.captured import Steps
from omnidrop.engine.decode import generate, score_choices, step
from omnidrop.engine.encode import Encoded
from omnidrop.engine.evidence import moments_of
from omnidrop.engine.prefill import Prefilled, prefill
from omnidrop.engine.timing import Meter
from omnidrop.errors import BudgetError
from omnidrop.format import span
from omnidrop.models.adapter import Adapter
from omnidrop.notices import PROVEN
from omnidrop.options import GenerateOptions
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer, LeftOut, Moment, Trace
from omnidrop.tokens import Prompt
from omnidrop.transfers import to_device


@dataclass(frozen=True)
class Asked:
    """A question that was answered, ready to be asked again."""

    adapter: Adapter
    prompt: Prompt
    encoded: Encoded
    method: Method
    options: GenerateOptions
    choices: tuple[str, ...]
    alive: Callable[[], None] | None = None

    def prefill(self) -> Prefilled:
        """Run the prompt through the decoder."""
        meter = Meter(self.adapter.device)
        again = partial(
            prefill,
            self.adapter,
            self.prompt,
            self.encoded,
            seed=self.options.seed,
            alive=self.alive,
        )
        try:
            return again(self.method, meter)
        except BudgetError:  # so few tokens are left that the method cannot choose among them
            return again(Method(), meter)


def proven(answer: Answer, asked: Asked, steps: Steps | None = None) -> Answer:
    """Return the answer with `left_out`, and a notice that says what it showed.

    What is left out are the moments of the trace. Where they are not known better than by chance,
    it is those with most of the question's attention: the proof does not depend on the guess.

    Parameters
    ----------
    answer : Answer
    asked : Asked
        What the answer is to.
    steps : Steps, optional
        Keeps a captured decode step.
    """
    found = _candidates(answer.trace)
    left_out: tuple[LeftOut, ...] = ()
    if found:
        whole = _probability(answer, asked, asked.prefill())
        left_out = tuple(
            _left_out(answer, _without_moment(asked, answer.trace, moment), moment, whole, steps)
            for moment in found
        )
    answer = replace(answer, left_out=left_out)
    notices = (*answer.trace.notices, sentence(answer))
    return replace(answer, trace=replace(answer.trace, notices=notices))


def sentence(answer: Answer) -> str:
    """Return what leaving out showed, in one sentence."""
    if not answer.left_out:
        return f"{PROVEN}no part of the clip stands out, so nothing was left out."
    one = answer.hangs_on
    if one is None:
        each = ", ".join(span(left.moment.start, left.moment.end) for left in answer.left_out)
        what = "it does not hang on that moment alone"
        if len(answer.left_out) > 1:
            each, what = f"each of {each}", "it hangs on none of them alone"
        return f"{PROVEN}without {each} the answer is the same, so {what}."
    when = span(one.moment.start, one.moment.end)
    if one.changed:
        what = f"the answer is {one.text!r}" if one.text.strip() else "there is no answer"
        return f"{PROVEN}without {when} {what}, so it hangs on that moment."
    return (
        f"{PROVEN}without {when} the answer is the same, with a probability of "
        f"{100 * one.probability:.3g} % instead of {100 * one.whole:.3g} %."
    )


def without(prompt: Prompt, encoded: Encoded, gone: torch.Tensor) -> tuple[Prompt, Encoded]:
    """Return a prompt and its embeddings without some audio and video tokens.

    Parameters
    ----------
    prompt : Prompt
    encoded : Encoded
        Of the whole clip.
    gone : Tensor, (N,) bool
        Tokens of the prompt to remove; only audio and video.
    """
    tokens = prompt.tokens
    stays = ~gone
    video, audio = stays[tokens.video], stays[tokens.audio]
    return (
        replace(
            prompt,
            ids=prompt.ids[stays],
            positions=prompt.positions[:, stays],
            tokens=tokens.select(stays),
        ),
        replace(
            encoded,
            planes=tuple(_rows(plane, video) for plane in encoded.planes),
            audio=None if encoded.audio is None else _rows(encoded.audio, audio),
            audio_attention=(
                None if encoded.audio_attention is None else _rows(encoded.audio_attention, audio)
            ),
            video_attention=(
                None if encoded.video_attention is None else _rows(encoded.video_attention, video)
            ),
        ),
    )


def _rows(values: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, to_device(stays.nonzero().squeeze(1), values.device))


def _candidates(trace: Trace) -> tuple[Moment, ...]:
    """Return the moments to leave out."""
    return trace.moments or moments_of(trace.chunks)


def _without_moment(asked: Asked, trace: Trace, moment: Moment) -> Asked:
    """Return the question about the clip without a moment."""
    inside = torch.tensor(
        [moment.start <= chunk.start < moment.end for chunk in trace.chunks], dtype=torch.bool
    )
    tokens = asked.prompt.tokens
    gone = tokens.av & inside[tokens.chunk.long().clamp_min(0)]
    prompt, encoded = without(asked.prompt, asked.encoded, gone)
    return replace(asked, prompt=prompt, encoded=encoded)


def _left_out(
    answer: Answer, asked: Asked, moment: Moment, whole: float, steps: Steps | None
) -> LeftOut:
    prefilled = asked.prefill()
    probability = _probability(answer, asked, prefilled)
    if asked.choices:
        text = score_choices(asked.adapter, prefilled, asked.choices)[0].text
    else:
        text = generate(asked.adapter, prefilled, asked.options, steps=steps).text
    return LeftOut(moment, text, text.strip() != answer.text.strip(), probability, whole)


@torch.inference_mode()
def _probability(answer: Answer, asked: Asked, prefilled: Prefilled) -> float:
    """Return the probability of an answer after a prefill; the cache is left as it was."""
    adapter = asked.adapter
    if asked.choices:
        scored = score_choices(adapter, prefilled, asked.choices)
        return next(choice.probability for choice in scored if choice.text == answer.text)
    lengths = prefilled.cache.lengths
    ids = list(answer.token_ids)
    rows = [prefilled.logits]
    if ids:
        rows += step(adapter, prefilled.cache, ids, prefilled.next_position)
        prefilled.cache.rewind(lengths)
    logprobs = [row.log_softmax(-1) for row in rows]
    total = sum(float(row[i]) for row, i in zip(logprobs, ids, strict=False))
    if answer.stop == "stop token":
        total += float(logprobs[-1][sorted(adapter.stop_ids)].logsumexp(-1))
    return math.exp(total)
