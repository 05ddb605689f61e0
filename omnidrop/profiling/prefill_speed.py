"""How fast a machine runs a model's prefill: measured once, on synthetic clips of a few seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch

from omnidrop.engine.encode import Encoded
from omnidrop.engine.prefill import prefill
from omnidrop.engine.timing import Meter
from omnidrop.errors import BudgetError
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.stages import StageName
from omnidrop.tokens import Media, Prompt

#: Chunks of the two synthetic clips.
CHUNKS = (1, 4)
#: Video tokens per grid, a square number; one grid per second.
TOKENS_PER_GRID = 64
#: Seconds of the smaller prefill above which the larger is not measured.
SLOW_SECONDS = 2.0
#: Budgets at which a method is timed: the first that it can reach.
BUDGETS = (0.3, 0.5, 0.2, 0.7, 0.1, 1.0)


@dataclass(frozen=True)
class PrefillSpeed:
    """Seconds of a prefill as a linear function of its FLOPs, for a model, method and machine.

    Attributes
    ----------
    rate : float
        FLOP/s.
    overhead : float
        Seconds of a prefill that do not grow with its tokens.
    selection : float
        Seconds per audio or video token of the clip that the method takes to select.
    """

    rate: float
    overhead: float = 0.0
    selection: float = 0.0

    def seconds(self, flops: float, tokens: int) -> float:
        """Return the expected seconds of a prefill of a clip with so many AV tokens."""
        return flops / self.rate + self.overhead + self.selection * tokens


def speed_through(points: tuple[tuple[float, float], tuple[float, float]]) -> PrefillSpeed:
    """Return the speed that two measured prefills show.

    Parameters
    ----------
    points : pair of (FLOPs, seconds)
        The smaller first. If the larger took no longer, all its time counts as arithmetic.
    """
    (few, short), (many, long) = points
    if many <= few or long <= short:
        return PrefillSpeed(many / long)
    rate = (many - few) / (long - short)
    return PrefillSpeed(rate, max(short - few / rate, 0.0))


_known: WeakKeyDictionary[Adapter, dict[tuple[str, str], PrefillSpeed]] = WeakKeyDictionary()


def prefill_speed(adapter: Adapter, method: Method) -> PrefillSpeed:
    """Return how fast prefills are on this machine; measured at the first call, then cached."""
    known = _known.setdefault(adapter, {})
    settings = {name: value for name, value in method.settings().items() if name != "budget"}
    key = (method.name, repr(settings))
    if key not in known:
        known[key] = _measure(adapter, method)
    return known[key]


def _measure(adapter: Adapter, method: Method) -> PrefillSpeed:
    points = []
    for chunks in CHUNKS:
        prompt, encoded = _synthetic_clip(adapter, chunks)
        seconds = min(_timed(adapter, prompt, encoded, Method())[0] for _ in range(2))
        av = int(prompt.tokens.av.sum())
        counts = (av,) * adapter.info.text.layers
        points.append((adapter.info.text.prefill_flops(len(prompt) - av, counts), seconds))
        if seconds > SLOW_SECONDS:
            return PrefillSpeed(points[-1][0] / seconds)
    chosen = _at_possible_budget(method, prompt, adapter.info.text.layers)
    selection = min(_timed(adapter, prompt, encoded, chosen)[1] for _ in range(2))
    return replace(speed_through((points[0], points[1])), selection=selection / av)


def _at_possible_budget(method: Method, prompt: Prompt, layers: int) -> Method:
    """Return the method at a budget that it can reach on the synthetic clip."""
    tokens = prompt.tokens.select(prompt.tokens.av)
    for budget in BUDGETS:
        chosen = replace(method, budget=budget)
        try:
            chosen.plan(tokens, layers)
        except BudgetError:
            continue
        return chosen
    return Method()


def _timed(
    adapter: Adapter, prompt: Prompt, encoded: Encoded, method: Method
) -> tuple[float, float]:
    """Return the seconds that the layers take, and those that selection takes."""
    meter = Meter(adapter.device)
    prefill(adapter, prompt, encoded, method, meter)
    took = {stage.name: stage.seconds for stage in meter.stages()}
    selection = took.get(StageName.SELECTION, 0.0)
    return took[StageName.PREFILL] - selection, took[StageName.ENTRY] + selection


def _synthetic_clip(adapter: Adapter, chunks: int) -> tuple[Prompt, Encoded]:
    """Return a random clip of whole seconds: `TOKENS_PER_GRID` video tokens and audio for each."""
    seconds = round(chunks * adapter.template.chunk_seconds)
    side = round(TOKENS_PER_GRID**0.5) * adapter.video_spec.merge_size
    video = TOKENS_PER_GRID * seconds
    audio = adapter.media_spec.tokens_of_samples(seconds * adapter.audio_spec.sampling_rate)
    media = Media(grid=(seconds, side, side), second_per_grid=1.0, audio_tokens=audio)
    prompt = build_prompt(adapter.text, adapter.template, "What can be seen and heard?", media)
    generator = torch.Generator().manual_seed(0)

    def embeddings(count: int) -> torch.Tensor:
        ids = torch.randint(adapter.info.text.vocab, (count,), generator=generator)
        with torch.inference_mode():
            return adapter.embed(ids.to(adapter.device))

    return prompt, Encoded(
        media=media,
        planes=tuple(embeddings(video) for _ in range(adapter.info.vision.planes)),
        audio=embeddings(audio),
        audio_attention=torch.rand(audio, generator=generator),
        video_attention=torch.rand(video, generator=generator),
    )
