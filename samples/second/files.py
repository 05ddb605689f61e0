"""Write a question set: clips as .mkv files, and a file of questions that `omnidrop eval` reads."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from . import pixels, tones
from .asking import Ask, asks, choose, worded
from .scenes import Scene, draw

CLIPS, PER_CLIP = 20, 3


def sound(scene: Scene) -> np.ndarray:
    """Return the sound of a scene, float32 (2, samples) at 48 kHz: parts, a faint hiss."""
    rng = np.random.default_rng([4, scene.seed])
    out = np.zeros((2, round(scene.seconds * tones.RATE)))
    for part in scene.parts:
        left = float(rng.uniform(0.35, 0.65))
        level = 0.35 * 10 ** (rng.uniform(-6, 0) / 20)
        played = tones.passage(part.instrument, part.stop - part.begin, rng) * level
        at = round(part.begin * tones.RATE)
        room = out[:, at : at + len(played)]
        room += np.array([[left], [1 - left]]) * 2 * played[: room.shape[1]]
    out += rng.normal(0, 7e-4, out.shape)
    return np.clip(out, -1, 1).astype(np.float32)


def write_clip(path: Path, scene: Scene) -> None:
    """Render a scene and write it with H.264 video and Opus audio."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = scene.frame
    with av.open(str(path), "w", format="matroska") as box:
        video = box.add_stream("libx264", rate=pixels.RATE)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        audio = box.add_stream("libopus", rate=tones.RATE, layout="stereo")
        audio.bit_rate = 128_000
        for k, image in enumerate(pixels.film(scene)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, pixels.RATE)
            box.mux(video.encode(frame))
        box.mux(video.encode())
        samples = sound(scene)
        size = tones.RATE // 50
        samples = np.pad(samples, ((0, 0), (0, -samples.shape[1] % size)))
        for at in range(0, samples.shape[1], size):
            block = np.ascontiguousarray(samples[:, at : at + size].T.reshape(1, -1))
            piece = av.AudioFrame.from_ndarray(block, format="flt", layout="stereo")
            piece.sample_rate, piece.pts = tones.RATE, at
            piece.time_base = Fraction(1, tones.RATE)
            box.mux(audio.encode(piece))
        box.mux(audio.encode())


def clip_name(seed: int) -> str:
    """Return the file name of a clip."""
    return f"clips/second_{seed}.mkv"


def line(scene: Scene, number: int, ask: Ask, rng: np.random.Generator) -> dict[str, object]:
    """Return one line of the file of questions."""
    return {
        "id": f"second_{scene.seed}_{number}",
        "video": clip_name(scene.seed),
        "question": worded(ask, rng),
        "choices": list(ask.choices),
        "answer": ask.answer,
        "category": ask.needs,
        "groups": {"kind": ask.kind},
        "evidence": [list(span) for span in ask.spans],
        "seed": scene.seed,
    }


def questions(first: int, clips: int = CLIPS, per_clip: int = PER_CLIP) -> list[dict[str, object]]:
    """Return the questions about the clips of some seeds.

    Parameters
    ----------
    first : seed of the first clip; the others follow it
    clips : number of clips
    per_clip : questions about each
    """
    lines: list[dict[str, object]] = []
    used: dict[str, int] = {}
    for seed in range(first, first + clips):
        scene = draw(seed)
        rng = np.random.default_rng([5, seed])
        for number, ask in enumerate(choose(asks(scene, rng), per_clip, used, rng)):
            lines.append(line(scene, number, ask, rng))
    return lines


def write_set(folder: Path, first: int, clips: int = CLIPS, per_clip: int = PER_CLIP) -> int:
    """Write clips and `questions.jsonl` into a folder; return the number of questions."""
    lines = questions(first, clips, per_clip)
    for seed in range(first, first + clips):
        write_clip(folder / clip_name(seed), draw(seed))
    text = "".join(json.dumps(entry) + "\n" for entry in lines)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    return len(lines)
