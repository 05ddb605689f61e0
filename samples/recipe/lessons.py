"""Training data of the towers: drawn clips, degraded as by codecs, with a label for each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from avsynth.media import through_aac
from avsynth.picture import draw_frames, frame_times
from avsynth.sound import Bank, render_sound
from avsynth.world import COLOURS, CORNERS, DIGITS, SHAPES, Clip, WorldOptions, draw_clip
from torch import Tensor

from omnidrop.clip.log_mel import log_mel

from .labels import Speaker, audio_labels, video_labels
from .layout import audio_tokens
from .towers import grids_of, windows_of


@dataclass(frozen=True)
class TowerOptions:
    """Settings of a stage.

    Attributes
    ----------
    steps : counted from the first step of the stage `towers`; learning rate and share of still
        images depend on it
    clips, grids : per step, for the audio and the vision tower; 0 does not train that tower
    """

    steps: int = 1500
    clips: int = 10
    grids: int = 72
    rate: float = 1.5e-3
    warmup: int = 40
    seed: int = 3


def worn(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade frames as a video codec does: coarser colour, noise, blur, another brightness."""
    x = frames.astype(np.float32)
    if rng.random() < 0.7:  # colour at half the resolution
        grey = x.mean(3, keepdims=True)
        colour = x - grey
        t, h, w, _ = colour.shape
        small = colour.reshape(t, h // 2, 2, w // 2, 2, 3).mean((2, 4))
        x = grey + small.repeat(2, 1).repeat(2, 2)
    if rng.random() < 0.4:
        a = float(rng.uniform(0.1, 0.5))
        for axis in (1, 2):
            x = (1 - a) * x + a / 2 * (np.roll(x, 1, axis) + np.roll(x, -1, axis))
    x = x * rng.uniform(0.92, 1.06) + rng.uniform(-8, 8)
    x += rng.normal(0, rng.uniform(0, 5), x.shape)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def worn_sound(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade audio: change the balance of frequencies, and encode half of the cases as AAC."""
    if rng.random() < 0.5:
        a = float(rng.uniform(-0.5, 0.6))  # brighter or duller
        audio = audio + a * np.concatenate([[0.0], audio[:-1]]).astype(np.float32)
    if rng.random() < 0.5:
        audio = through_aac(np.clip(audio, -1, 1), int(rng.choice([32, 64, 96, 128])))
    return audio.astype(np.float32)


def audio_batch(
    clips: list[Clip],
    bank: Bank,
    speaker: Speaker,
    wear: Callable[[np.ndarray], np.ndarray] | None = None,
):
    """Return windows, lengths, target vectors, classes (8 = silence, -1 = mixed) and validity."""
    parts = []
    for clip in clips:
        audio = render_sound(clip, bank, bend=True)
        if wear is not None:
            audio = wear(audio)
        w, lengths = windows_of(log_mel(audio))
        n = audio_tokens(len(audio))
        lab = audio_labels(clip, n)
        room = len(w) * 50 - n
        target = np.pad(speaker.audio(lab), ((0, room), (0, 0)))
        share = lab["share"]
        kind = np.where(share.max(1) > 0.9, share.argmax(1), np.where(share.sum(1) < 0.1, 8, -1))
        kind = np.pad(kind, (0, room), constant_values=-1)
        valid = np.arange(len(w) * 50) < n
        parts.append(
            (w, lengths, torch.from_numpy(target), torch.from_numpy(kind), torch.from_numpy(valid))
        )
    return tuple(torch.cat(p) for p in zip(*parts, strict=True))


def video_batch(
    clips: list[Clip],
    speaker: Speaker,
    rng: np.random.Generator,
    limit: int,
    still_share: float = 0.0,
):
    """Return patches of `limit` grids of one size, targets, classes; grids with a digit first."""
    grids, targets, classes = [], [], []
    count = 0
    for clip in clips:
        lab = video_labels(clip)
        order = np.argsort(~lab["grid_digit"] + 0.3 * rng.random(lab["grids"]), kind="stable")[:4]
        times = frame_times(clip.duration)
        if still := bool(rng.random() < still_share):  # both frames of a grid alike
            for k in ("cover", "event", "digit"):
                lab[k][:, 1] = lab[k][:, 0]
        times = times[
            np.minimum(np.stack([2 * order, 2 * order + (not still)], 1), len(times) - 1).reshape(
                -1
            )
        ]
        frames = draw_frames(clip, times)
        if rng.random() < 0.8:
            frames = worn(frames, rng)
        p, rows, cols = grids_of(frames)
        n = rows * cols
        cover, event = lab["cover"], lab["event"]
        none = np.full((lab["grids"], n), -1)
        kinds = {k: none.copy() for k in ("shape", "colour", "digit", "hue", "corner")}
        calm = cover.max(1) < 0.02
        sure = (event[:, :1] == event[:, 1:]) & (cover.min(1) > 0.06)
        e = np.maximum(event[:, 0], 0)
        digit = lab["digit"].max(1) > 0
        for name, group, attr in (("shape", SHAPES, "shape"), ("colour", COLOURS, "colour")):
            value = np.array([group.index(getattr(s, attr)) for s in clip.shapes] or [0])
            kinds[name] = np.where(calm, len(group), np.where(sure, value[e][:, None], -1))
            kinds[name] = np.where(digit, -1, kinds[name])
        f = clip.flash
        kinds["digit"] = np.where(digit, DIGITS.index(f.digit) if f else 0, len(DIGITS))
        if f:
            kinds["hue"] = np.where(digit, COLOURS.index(f.colour), -1)
            kinds["corner"] = np.where(digit, CORNERS.index(f.corner), -1)
        target = speaker.video(clip, lab).reshape(lab["grids"], n, -1)
        grids.append(p)
        targets.append(target[order])
        classes.append({k: v[order] for k, v in kinds.items()})
        count += len(order)
        if count >= limit:
            break
    return (
        torch.cat(grids),
        torch.from_numpy(np.concatenate(targets)),
        {k: torch.from_numpy(np.concatenate([c[k] for c in classes])) for k in classes[0]},
        rows,
        cols,
    )


@dataclass
class Lesson:
    """Tensors of one step; None for a tower that is not trained."""

    sound: tuple[Tensor, ...] | None
    picture: tuple[Tensor, Tensor, dict[str, Tensor], int, int] | None


class Lessons:
    """Endless lessons, the same for the same seed and first step."""

    def __init__(
        self, options: TowerOptions, bank: Bank, speaker: Speaker, begin: int, first_seed: int
    ) -> None:
        self.options, self.bank, self.speaker = options, bank, speaker
        self.rng = np.random.default_rng([options.seed, begin])
        self.seed = first_seed + begin * 1000

    def clips(self) -> tuple[list[Clip], list[Clip]]:
        """Return clips for the audio tower, and clips of one frame size for the vision tower."""
        o = self.options
        world = WorldOptions(odd_sizes=float(self.rng.random() < 0.12))
        heard: list[Clip] = []
        seen: list[Clip] = []
        while len(heard) < o.clips or len(seen) < o.grids // 4:
            self.seed += 1
            clip = draw_clip(self.seed, world)
            if clip.sounds is not None and len(heard) < o.clips:
                heard.append(clip)
            if clip.shapes is not None and len(seen) < o.grids // 4:
                size = (clip.width, clip.height)
                if not seen or size == (seen[0].width, seen[0].height):
                    seen.append(clip)
        return heard, seen

    def draw(self, still: float) -> Lesson:
        """Return the next lesson; `still` is the share of clips with still images."""
        heard, seen = self.clips()
        sound = picture = None
        if heard:
            sound = audio_batch(heard, self.bank, self.speaker, lambda x: worn_sound(x, self.rng))
        if seen:
            picture = video_batch(seen, self.speaker, self.rng, self.options.grids, still)
        return Lesson(sound, picture)
