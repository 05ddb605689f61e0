"""Training of ContextGuard's audio-to-visual predictor on clips without labels.

The model is frozen: only its encoders run, once per clip. The predictor learns the mean video
embedding of a chunk from the audio of that chunk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from omnidrop.engine.session import Session
from omnidrop.errors import MediaError, UsageError
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.parts.a2v import Chunks, Predictor, Shape, mean_picture
from omnidrop.pruning.parts.trained import Network
from omnidrop.stages import Progress


@dataclass(frozen=True)
class TrainOptions:
    """How a predictor is trained.

    Parameters
    ----------
    hidden, heads : int
        Size of the network; see `omnidrop.pruning.parts.a2v.Shape`.
    steps, batch : int
        Steps of the optimiser, and chunks per step.
    rate : float
        Learning rate (AdamW; linear warm-up over 5 % of the steps, then linear decay to 0).
    decay : float
        Weight decay.
    held_out : float
        Share of the clips held out, at least one. Whole clips, so that no chunk is evaluated whose
        neighbours were trained on.
    seed : int
    """

    hidden: int = 64
    heads: int = 4
    steps: int = 1000
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "steps", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more.")
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(
                f"held_out must be between 0 and 1, not {self.held_out:g}.",
                hint="Give one like 0.2.",
            )
        if not self.rate > 0.0 or not self.decay >= 0.0 or self.seed < 0:
            raise UsageError("rate must be above 0; decay and seed 0 or more.")


@dataclass(frozen=True)
class Pairs:
    """Audio and video embeddings of a clip's chunks.

    Attributes
    ----------
    audio : Tensor, (c, n, D) float32
    there : Tensor, (c, n) bool
    picture : Tensor, (c, D) float32
        Mean video embedding.
    """

    audio: torch.Tensor
    there: torch.Tensor
    picture: torch.Tensor

    def __len__(self) -> int:
        return len(self.picture)


def pairs_of(session: Session, progress: Progress | None = None) -> Pairs:
    """Encode an open clip; return its chunks that have both audio and video, on the CPU."""
    encoded = session.encode(progress)
    prompt = build_prompt(session.adapter.text, session.adapter.template, "-", encoded.media)
    tokens = prompt.tokens.select(prompt.tokens.av)
    embeds = encoded.in_prompt_order(tokens.video)[0].detach()
    chunks = Chunks.of(tokens, embeds)
    number, video = mean_picture(tokens, embeds)
    with_audio, with_video = torch.isin(chunks.number, number), torch.isin(number, chunks.number)
    return Pairs(
        chunks.audio.cpu()[with_audio], chunks.there.cpu()[with_audio], video.cpu()[with_video]
    )


def train(
    clips: Sequence[Pairs],
    adapter: Adapter,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
) -> Network:
    """Train a predictor; the loss is 1 − cosine.

    Parameters
    ----------
    clips : sequence of Pairs
        One per clip; at least two must have chunks.
    adapter : Adapter
        The model whose encoders made them.
    options : TrainOptions, optional
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    Network
        The `Predictor`. Its `training` holds the losses on training and held-out clips, and on the
        latter the loss of a constant prediction, which ignores the audio.

    Raises
    ------
    MediaError
        If fewer than two clips have both audio and video.
    """
    options = options or TrainOptions()
    useful = [clip for clip in clips if len(clip)]
    if len(useful) < 2:
        raise MediaError(
            f"{len(useful)} of {len(clips)} clips have both audio and video, and at least two "
            "are needed: one to train on and one to evaluate.",
            hint="Give more clips with audio.",
        )
    order = random.Random(options.seed).sample(range(len(useful)), len(useful))
    aside = min(max(round(options.held_out * len(useful)), 1), len(useful) - 1)
    train_set = _join([useful[i] for i in order[aside:]])
    held_out_set = _join([useful[i] for i in order[:aside]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        predictor = Predictor(Shape(train_set.picture.shape[1], options.hidden, options.heads))
    _fit(predictor, train_set, options, progress or _silent)
    training: dict[str, Any] = {
        **asdict(options),
        "clips": len(order) - aside,
        "chunks": len(train_set),
        "held_out_clips": aside,
        "held_out_chunks": len(held_out_set),
        "loss": round(_loss(predictor, train_set), 5),
        "held_out_loss": round(_loss(predictor, held_out_set), 5),
        "held_out_loss_without_listening": round(_constant_loss(train_set, held_out_set), 5),
    }
    shape = asdict(predictor.shape)
    return Network(predictor, shape, adapter.info.name, adapter.fingerprint, training)


def _silent(stage: str, done: float, total: float | None) -> None:
    return None


def _join(clips: Sequence[Pairs]) -> Pairs:
    """Concatenate clips, padded to the longest chunk."""
    most = max(clip.audio.shape[1] for clip in clips)

    def pad(rows: torch.Tensor) -> torch.Tensor:
        missing = (len(rows), most - rows.shape[1], *rows.shape[2:])
        return torch.cat([rows, rows.new_zeros(missing)], dim=1)

    return Pairs(
        torch.cat([pad(clip.audio) for clip in clips]),
        torch.cat([pad(clip.there) for clip in clips]),
        torch.cat([clip.picture for clip in clips]),
    )


def _fit(predictor: Predictor, data: Pairs, options: TrainOptions, progress: Progress) -> None:
    steps = options.steps
    draw = torch.Generator().manual_seed(options.seed)
    optimiser = torch.optim.AdamW(
        predictor.parameters(), lr=options.rate, weight_decay=options.decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / max(steps / 20, 1), (steps - step) / steps),
    )
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(data), (options.batch,), generator=draw)
            guess = predictor(data.audio[rows], data.there[rows])
            loss = _cosine_loss(guess, data.picture[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress("training", step + 1.0, float(steps))
    predictor.eval().requires_grad_(False)


def _cosine_loss(guess: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    return 1 - torch.cosine_similarity(guess, picture, dim=-1).mean()


@torch.inference_mode()
def _loss(predictor: Predictor, data: Pairs) -> float:
    return float(_cosine_loss(predictor(data.audio, data.there), data.picture))


def _constant_loss(train_set: Pairs, held_out_set: Pairs) -> float:
    """Return the loss of a constant prediction: the mean direction of the training targets."""
    mean = torch.nn.functional.normalize(train_set.picture, dim=-1).mean(0)
    return float(_cosine_loss(mean.expand_as(held_out_set.picture), held_out_set.picture))
