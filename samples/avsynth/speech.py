"""Spoken words: a small bank of recordings in several voices, and how one is heard in a clip.

The recordings were made with eSpeak NG (`espeak`, bank/LICENSE.md) and are committed as FLAC, those
of the test's voices apart from all others. Nothing here needs eSpeak NG.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .flac import FOLDER, RATE, read_flac
from .world import WORDS, Said

SLOT_SAMPLES = 11_200
"""Samples of a recording in a bank's file, zeros after its end."""
LEVEL = 0.1
"""Root mean square of a recording, of 1."""
HEIGHTS = ("low", "high")


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG.

    Attributes
    ----------
    name : what its option `-v` gets: accent and variant
    height : "low" (up to 115 Hz) or "high" (from 180 Hz)
    pitch, speed : its options `-p` (0 to 99) and `-s` (words a minute)
    test : whether the voice is kept for the test
    """

    name: str
    height: str
    pitch: int
    speed: int
    test: bool = False


VOICES = (
    Voice("en-us+m3", "low", 50, 155),
    Voice("en-gb-scotland+m2", "low", 55, 175),
    Voice("en-029+m7", "low", 40, 140),
    Voice("en-us+linda", "high", 50, 170),
    Voice("en-gb-scotland+f5", "high", 65, 150),
    Voice("en-029+f2", "high", 75, 160),
    Voice("en-gb-x-rp+m5", "low", 45, 160, True),
    Voice("en-gb-x-rp+belinda", "high", 55, 155, True),
)


def voices(test: bool, height: str | None = None) -> list[Voice]:
    """Return the voices of the test or of all other clips, and of one height if it is given."""
    return [v for v in VOICES if v.test == test and height in (None, v.height)]


def file_name(test: bool) -> str:
    """Return the name of the bank's file with the voices of the test, or with the others."""
    return f"said-{'test' if test else 'train'}-{len(voices(test))}.flac"


@lru_cache(maxsize=2)
def _bank(test: bool, folder: Path = FOLDER) -> dict[tuple[str, str], np.ndarray]:
    slots = read_flac(folder / file_name(test)).reshape(-1, SLOT_SAMPLES)
    names = [(voice.name, text) for voice in voices(test) for text in WORDS]
    return {
        name: slot[: int(np.flatnonzero(slot)[-1]) + 1]
        for name, slot in zip(names, slots, strict=True)
    }


def recording(voice: str, text: str) -> np.ndarray:
    """Return a word as a voice says it, int16 (samples,), 16 kHz.

    Raises
    ------
    KeyError
        If there is no such voice or word.
    """
    test = {v.name: v.test for v in VOICES}[voice]
    return _bank(test)[voice, text]


def spoken(voice: str, text: str, shift: float) -> np.ndarray:
    """Return a word as it is heard in a clip, float64 (samples,), 16 kHz.

    Parameters
    ----------
    voice : name of one of `VOICES`
    text : one of `WORDS`
    shift : semitones; the recording is played faster or slower
    """
    sound = recording(voice, text) / 32768.0
    ratio = 2 ** (shift / 12)
    at = np.arange(int(len(sound) / ratio) - 1) * ratio
    return np.interp(at, np.arange(len(sound)), sound)


def seconds(voice: str, text: str, shift: float) -> float:
    """Return how long a word is heard."""
    return len(spoken(voice, text, shift)) / RATE


def height(said: Said) -> str:
    """Return the height of the voice that says a word."""
    return {v.name: v.height for v in VOICES}[said.voice]


#: What else plays is lowered to this share while a word is said, with ramps of `RAMP_S` seconds.
LOWERED, RAMP_S = 0.25, 0.05
#: A word is at least so many times as loud as what else is heard then.
ABOVE = 2.0


def add_speech(out: np.ndarray, words: tuple[Said, ...], loud: float) -> None:
    """Mix words into a clip's audio, in place, clearly above what else is heard.

    Parameters
    ----------
    out : float64 (samples,), 16 kHz, instruments without noise
    words : that do not overlap
    loud : loudness of the clip, 1 for full
    """
    for said in words:
        sound = spoken(said.voice, said.text, said.shift)
        at = round(said.start * RATE)
        sound = sound[: len(out) - at]
        end, ramp = at + len(sound), round(RAMP_S * RATE)
        around = np.arange(max(0, at - ramp), min(len(out), end + ramp))
        gain = np.interp(around, (at - ramp, at, end, end + ramp), (1, LOWERED, LOWERED, 1))
        out[around] *= gain
        rest = np.sqrt((out[at:end] ** 2).mean())
        level = max(0.12 * loud, ABOVE * rest, 0.04)
        out[at:end] += sound * (level / np.sqrt((sound**2).mean()))
