"""The token loop: greedy or sampled, streamed, stopped; and choices scored by their logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.timing import Meter
from omnidrop.errors import UsageError
from omnidrop.models.adapter import Adapter
from omnidrop.options import GenerateOptions
from omnidrop.report.trace import Choice
from omnidrop.stages import StageName

#: Stands at the end of decoded text while a character's bytes are not complete.
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Generated:
    """What the token loop made.

    Attributes
    ----------
    ids : tuple of int
        Generated ids, the stop token excluded.
    text : str
    stop : str
        "stop token" or "max new tokens".
    logprobs : tuple of float
        One per id where asked.
    """

    ids: tuple[int, ...]
    text: str
    stop: str
    logprobs: tuple[float, ...]


def pick(logits: torch.Tensor, options: GenerateOptions, generator: torch.Generator) -> int:
    """Choose the next token.

    Parameters
    ----------
    logits : Tensor, (V,) float32
    options : GenerateOptions
    generator : torch.Generator
        CPU generator; the draw is made there so that a seed means the same on every device.
    """
    if options.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.float().cpu() / options.temperature).softmax(-1)
    if options.top_p < 1:
        ordered, index = probabilities.sort(descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= options.top_p
        probabilities = torch.zeros_like(probabilities).scatter(
            0, index, ordered.masked_fill(outside, 0.0)
        )
    return int(torch.multinomial(probabilities, 1, generator=generator))


@torch.inference_mode()
def generate(
    adapter: Adapter,
    prefilled: Prefilled,
    options: GenerateOptions,
    on_text: Callable[[str], None] | None = None,
    on_token: Callable[[], None] | None = None,
    meter: Meter | None = None,
) -> Generated:
    """Generate an answer after a prefill.

    Parameters
    ----------
    adapter : Adapter
    prefilled : Prefilled
        Its cache grows.
    options : GenerateOptions
    on_text : callable, optional
        Receives each new piece of text; pieces joined are the answer.
    on_token : callable, optional
        Called once a token is chosen, the stop token included.
    meter : Meter, optional
        Receives the times of the steps (decode) and of turning ids into text (detokenise).
    """
    stage = meter.stage if meter is not None else _untimed
    generator = torch.Generator().manual_seed(options.seed)
    stream = TextStream(adapter.text.decode, on_text)
    ids: list[int] = []
    logprobs: list[float] = []
    logits, stop = prefilled.logits, "max new tokens"
    while True:
        token = pick(logits, options, generator)
        if on_token is not None:
            on_token()
        if token in adapter.stop_ids:
            stop = "stop token"
            break
        ids.append(token)
        if options.logprobs:
            logprobs.append(float(logits.log_softmax(-1)[token]))
        with stage(StageName.DETOKENISE):
            stream.push(token)
        if len(ids) >= options.max_new_tokens:
            break
        position = prefilled.next_position + len(ids) - 1
        with stage(StageName.DECODE):
            logits = step(adapter, prefilled.cache, [token], position)[-1]
    with stage(StageName.DETOKENISE):
        text = stream.finish()
    return Generated(tuple(ids), text, stop, tuple(logprobs))


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
        Logits after each fed token.
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
    first = prefilled.logits.log_softmax(-1)
    lengths = prefilled.cache.lengths
    stops = sorted(adapter.stop_ids)
    sums = []
    for text in texts:
        ids = adapter.text.encode(text)[0]
        after = step(adapter, prefilled.cache, ids, prefilled.next_position)
        prefilled.cache.rewind(lengths)
        rows = [first, *(row.log_softmax(-1) for row in after)]
        total = sum(float(row[i]) for row, i in zip(rows, ids, strict=False))
        sums.append(total + float(rows[-1][stops].logsumexp(-1)))
    shares = torch.tensor(sums, dtype=torch.float64).softmax(-1).tolist()
    order = sorted(range(len(texts)), key=lambda i: -sums[i])
    return tuple(Choice(texts[i], shares[i], sums[i]) for i in order)


class TextStream:
    """Turns ids into pieces of text that never end inside a character.

    Parameters
    ----------
    decode : callable
        ids → text.
    on_text : callable or None
        Receives each piece.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], on_text: Callable[[str], None] | None
    ) -> None:
        self._decode = decode
        self._on_text = on_text
        self._ids: list[int] = []
        self._told = 0

    def push(self, token: int) -> None:
        """Add an id; tell what text it completes."""
        self._ids.append(token)
        if self._on_text is None:
            return
        text = self._decode(self._ids)
        if not text.endswith(REPLACEMENT):
            self._tell(text)

    def finish(self) -> str:
        """Tell the rest and return the whole text."""
        text = self._decode(self._ids)
        self._tell(text)
        return text

    def _tell(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._told:
            self._on_text(text[self._told :])
            self._told = len(text)
