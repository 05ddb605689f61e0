"""The audio of a clip: phrases made from a bank of single notes, spoken words, noise, silence.

No synthesiser is needed. Two compact banks are committed as FLAC (see bank/LICENSE.md): one for the
test split, whose notes are never used in training, and one for all other clips.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .flac import FOLDER, RATE, read_flac
from .speech import add_speech
from .world import INSTRUMENTS, Clip, Sound

NOTE_SAMPLES = 17_600
Bank = dict[str, np.ndarray]


@lru_cache(maxsize=4)
def load_bank(name: str = "test") -> Bank:
    """Return the notes of each instrument, int16 (notes, samples).

    Parameters
    ----------
    name : "test", "train" (the committed banks) or the path of an .npz made by `fluid`
    """
    if name.endswith(".npz"):
        with np.load(name) as data:
            return {k: data[k] for k in INSTRUMENTS}
    path = next(FOLDER.glob(f"{name}-*.flac"))
    counts = [int(c) for c in path.stem.split("-")[1:]]
    notes = read_flac(path).reshape(-1, NOTE_SAMPLES)
    ends = np.cumsum(counts)
    return {k: notes[e - c : e] for k, c, e in zip(INSTRUMENTS, counts, ends, strict=True)}


def _fade(x: np.ndarray, edge: int) -> np.ndarray:
    ramp = np.linspace(0, 1, edge)
    out = x.astype(np.float64)
    out[:edge] *= ramp
    out[-edge:] *= ramp[::-1]
    return out


def _bend(note: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift a note by up to two and a half semitones by playing it faster or slower."""
    ratio = 2 ** (rng.uniform(-2.5, 2.5) / 12)
    at = np.arange(int(len(note) / ratio) - 1) * ratio
    return np.interp(at, np.arange(len(note)), note)


def phrase(sound: Sound, bank: Bank, rng: np.random.Generator, bend: bool = False) -> np.ndarray:
    """Return what one instrument plays in a span: notes, chords or strokes, float64 around ±0.4."""
    n = round((sound.end - sound.start) * RATE)
    notes = bank[sound.instrument]
    out = np.zeros(n + 2 * NOTE_SAMPLES)
    beat = n / RATE if sound.short else float(rng.uniform(0.16, 0.5))
    chords = sound.instrument in ("piano", "guitar", "organ") and rng.random() < 0.35
    held = float(rng.uniform(0.9, 1.1))
    t = 0.0
    while t < n / RATE - 0.05:
        length = beat * (1.0 if sound.short else float(rng.choice([1, 1, 1, 2])))
        if sound.instrument == "drums" and not sound.short:
            length = min(length, 0.3)
        for _ in range(2 if chords else 1):
            note = notes[int(rng.integers(len(notes)))]
            if bend:
                note = _bend(note, rng)
            size = min(len(note), max(2400, int(length * held * RATE)))
            piece = _fade(note[:size] / 32768.0, 160 if sound.instrument != "drums" else 24)
            at = int(t * RATE)
            out[at : at + size] += piece * (0.7 if chords else 1.0) * rng.uniform(0.75, 1.0)
        t += length
    return _fade(out[:n], min(320, n // 8))


def render_sound(clip: Clip, bank: Bank, bend: bool = False) -> np.ndarray | None:
    """Render the clip's audio, float32 mono at 16 kHz; None for a clip without audio.

    With `bend` (training only) every note is shifted by a random amount, so that instruments cannot
    be told apart by pitch.
    """
    if clip.sounds is None:
        return None
    rng = np.random.default_rng([clip.seed, 4])
    out = np.zeros(round(clip.duration * RATE))
    loud = 10 ** (rng.uniform(-14, 0) / 20)
    for s in clip.sounds:
        at = round(s.start * RATE)
        piece = phrase(s, bank, rng, bend) * loud * 10 ** (rng.uniform(-4, 0) / 20)
        piece = piece[: len(out) - at]
        out[at : at + len(piece)] += piece
    add_speech(out, clip.speech, loud)
    out += rng.normal(0, 10 ** (clip.noise_db / 20), len(out))
    pcm = np.rint(np.clip(out, -1, 1) * 32767).astype(np.int16)
    return pcm.astype(np.float32) / 32768
