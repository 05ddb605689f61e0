"""Builds the Trace of an answer from the engine's results. It counts; it runs no model."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

import omnidrop
from omnidrop.engine.conversation import Written
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Encoded
from omnidrop.engine.evidence import chunk_shares, moments_of
from omnidrop.engine.memory import HostPeak, device_peak
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.timing import Meter
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import Method
from omnidrop.pruning.schedules import TOLERANCE
from omnidrop.report.model_sizes import described
from omnidrop.report.trace import ChunkTrace, Memory, Trace
from omnidrop.tokens import Prompt, TokenMap

if TYPE_CHECKING:
    from omnidrop.clip.clip import Clip


@dataclass(frozen=True)
class Account:
    """What was done for one question.

    Attributes
    ----------
    written : Written
        The prompt, and the earlier turns in it.
    prefilled : Prefilled
    method : Method
    options : GenerateOptions
    memory : HostPeak
    kv_bytes : int
        Bytes of the KV cache right after prefill.
    ticks : tuple of float
        Seconds from the start of the question to each chosen token.
    notices : tuple of str
    decode_loop : str
        `Generated.loop`.
    default : dict or None
        `Chosen.default`.
    """

    written: Written
    prefilled: Prefilled
    method: Method
    options: GenerateOptions
    memory: HostPeak
    kv_bytes: int
    ticks: tuple[float, ...]
    notices: tuple[str, ...]
    decode_loop: str = ""
    default: dict[str, Any] | None = None

    @property
    def prompt(self) -> Prompt:
        """The prompt."""
        return self.written.prompt


def build_trace(
    adapter: Adapter,
    clip: Clip | None,
    encoded: Encoded,
    account: Account,
    meter: Meter,
    question: str,
    system: str | None,
) -> Trace:
    """Count the tokens entering each layer per modality and chunk; collect times and settings."""
    tokens, survivors = account.prompt.tokens, account.prefilled.survivors
    video = tokens.video
    kept_video = tuple(int(video[index].sum()) for index in survivors)
    kept_audio = tuple(len(index) - v for index, v in zip(survivors, kept_video, strict=True))
    text = int((~tokens.av).sum())
    total = int(tokens.av.sum())
    layers = len(survivors)
    kept = tuple(len(index) for index in survivors)
    realised = sum(kept) / (layers * total) if total else 1.0
    shape = adapter.info.text
    element = torch.empty(0, dtype=adapter.dtype).element_size()
    ticks = account.ticks
    chunks = _chunks(tokens, account.prefilled, adapter.template.chunk_seconds, clip)
    reading = account.prefilled.reading
    # An adaptive method may keep less than its budget; then what it kept counts.
    budget = min(float(account.method.budget), realised + TOLERANCE)
    rate = reading.rate(account.method.name, budget)
    speed = (len(ticks) - 1) / (ticks[-1] - ticks[0]) if len(ticks) > 1 else None
    return Trace(
        method={
            "name": account.method.name,
            **account.method.settings(),
            "plan": dict(account.prefilled.plan.settings),
            **({"default": account.default} if account.default is not None else {}),
        },
        model=described(adapter.info),
        clip=_describe(clip, encoded),
        settings={
            "question": question,
            "system": adapter.template.system if system is None else system,
            "earlier": [
                {"question": turn.question, "answer": turn.text, "token_ids": turn.token_ids}
                for turn in account.written.seen
            ],
            **asdict(account.options),
            "versions": versions(),
        },
        text_tokens=text,
        audio_tokens=total - int(video.sum()),
        video_tokens=int(video.sum()),
        asked_budget=float(account.method.budget),
        realised_budget=realised,
        planned=account.prefilled.plan.counts,
        kept_audio=kept_audio,
        kept_video=kept_video,
        chunks=chunks,
        stages=meter.stages(),
        ttft=ticks[0] if ticks else meter.since_start(),
        tokens_per_second=speed,
        memory=Memory(
            host=account.memory.bytes(),
            device=device_peak(adapter.device),
            kv_cache=account.kv_bytes,
            kv_cache_unpruned=shape.kv_bytes((len(tokens),) * layers, element),
            weights=adapter.weights.total_bytes,
            mapped=adapter.weights.mapped_bytes,
            measured=account.memory.measured,
        ),
        flops_prefill=shape.prefill_flops(text, kept)
        + shape.two_way_flops(text + total, account.method.own_layers),
        flops_prefill_unpruned=shape.prefill_flops(text, (total,) * layers),
        notices=(*account.notices, *account.written.notices),
        decode_loop=account.decode_loop,
        load_seconds=adapter.load_seconds,
        warm=adapter.warm,
        survivors=(
            tuple(tuple(index.tolist()) for index in survivors) if account.options.survivors else ()
        ),
        used=encoded.used,
        moments=() if rate is None or not rate.above_chance else moments_of(chunks),
        evidence={
            "layers": reading.layers,
            "rows": reading.rows,
            "heads": reading.heads,
            "correction": reading.correction,
            "source": reading.source,
            "rate": None if rate is None else asdict(rate),
        },
    )


def versions() -> dict[str, str]:
    """Versions that an answer depends on."""
    return dict(_versions())


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Look up the versions once: a lookup takes as long as a small model's prefill."""
    from importlib.metadata import version

    found = [(name, version(name)) for name in ("torch", "transformers", "av", "numpy")]
    return ("omnidrop", omnidrop.__version__), ("python", platform.python_version()), *found


def _chunks(
    tokens: TokenMap,
    prefilled: Prefilled,
    seconds: float,
    clip: Clip | None,
) -> tuple[ChunkTrace, ...]:
    count = tokens.chunks
    if not count:
        return ()
    video = tokens.video

    def per_chunk(index: torch.Tensor) -> list[int]:
        return torch.bincount(tokens.chunk[index].long(), minlength=count).tolist()

    every = torch.nonzero(tokens.av).squeeze(1)
    video_total, audio_total = per_chunk(every[video[every]]), per_chunk(every[~video[every]])
    by_layer = [
        (per_chunk(index[video[index]]), per_chunk(index[~video[index]]))
        for index in prefilled.survivors
    ]
    relevance: tuple[float, ...] | None = None
    if prefilled.relevance is not None:
        per_token = prefilled.reading.correction == "per token"
        relevance = chunk_shares(prefilled.relevance, tokens.chunk, count, per_token=per_token)
    return tuple(
        ChunkTrace(
            start=start,
            end=end,
            audio=tuple(audio[i] for _, audio in by_layer),
            video=tuple(video[i] for video, _ in by_layer),
            audio_total=audio_total[i],
            video_total=video_total[i],
            relevance=None if relevance is None else relevance[i],
        )
        for i, (start, end) in enumerate(chunk_spans(count, seconds, clip))
    )


def chunk_spans(count: int, seconds: float, clip: Clip | None) -> list[tuple[float, float]]:
    """Return start and end of each chunk, in seconds from the start of the file.

    Parameters
    ----------
    count : int
        Chunks.
    seconds : float
        Length of a chunk.
    clip : Clip or None
        The last chunk ends with it. None for precomputed features.
    """
    start = clip.start if clip is not None else 0.0
    end = start + clip.duration if clip is not None else float("inf")
    return [(start + i * seconds, min(start + (i + 1) * seconds, end)) for i in range(count)]


def _describe(clip: Clip | None, encoded: Encoded) -> dict[str, Any]:
    grid = {"grid": encoded.media.grid, "second_per_grid": encoded.media.second_per_grid}
    if clip is None:
        return {"path": None, **grid}
    return {
        "path": str(clip.path),
        "duration": clip.info.duration,
        "start": clip.start,
        "span": clip.duration,
        "format": clip.info.format,
        "fps": clip.plan.fps if clip.plan is not None else None,
        "frames": len(clip.plan.times) if clip.plan is not None else 0,
        "size": clip.plan.size if clip.plan is not None else None,
        **grid,
        "repeated_grids": encoded.repeated_grids,
        "identity": clip.identity,
        "sampling": {
            key: None if value is None else (str(value) if key == "audio_file" else value)
            for key, value in asdict(clip.options.resolved(clip.spec.video)).items()
        },
    }
