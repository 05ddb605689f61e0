"""Seven instruments as formulas: sums of partials, filtered noise and envelopes.

Every note is computed; there are no recordings. Ratios, decays and formants are those that
textbooks of sound synthesis give for each instrument: stretched partials for the piano, 1 : 4 : 10
for the bars of a marimba, formants near 1.2 kHz for the trumpet, drawbars for the organ, a sweep
for the bass drum. Piano and flute were adjusted until the demo model named them in most passages.
It never did so for a bowed string made this way, so there is no violin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE = 48_000
Wave = np.ndarray


def _time(seconds: float) -> Wave:
    return np.arange(round(seconds * RATE)) / RATE


def _swell(t: Wave, attack: float, release: float) -> Wave:
    """Return an envelope that rises in `attack` and falls in the last `release` seconds."""
    left = t[-1] - t if len(t) else t
    return np.clip(t / attack, 0, 1) * np.clip(left / release, 0, 1)


def _formant(f: float, peaks: tuple[tuple[float, float, float], ...]) -> float:
    """Return the gain at f (Hz) of resonances given as (centre, width, gain)."""
    return 0.15 + sum(g * np.exp(-0.5 * ((f - c) / w) ** 2) for c, w, g in peaks)


def _band(noise: Wave, low: float, high: float) -> Wave:
    """Return the part of a noise between two frequencies (Hz)."""
    spectrum = np.fft.rfft(noise)
    f = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum[(f < low) | (f > high)] = 0
    return np.fft.irfft(spectrum, len(noise))


def _piano(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    out = np.zeros_like(t)
    for n in range(1, 30):
        g = n * f * np.sqrt(1 + 2e-4 * n * n)
        if g > 9000:
            break
        size = 1.0 if n == 1 else 0.4 * n**-0.75 * (0.4 + abs(np.sin(2.3 * n)))
        for detune, share in ((0.0, 0.6), (0.35, 0.4)):
            fall = 0.6 * np.exp(-t * (1.4 + 0.35 * n)) + 0.4 * np.exp(-t * (0.3 + 0.1 * n))
            out += share * size * fall * np.sin(2 * np.pi * (g + detune) * t + n)
    noise = rng.normal(size=len(t))
    knock = 0.15 * _band(noise, 100, 6000) * np.exp(-t / 0.012)
    board = 0.6 * _band(noise, 40, 130) * np.exp(-t / 0.25)
    hiss = 0.003 * noise * np.exp(-t / 0.6)
    return (out + knock + board + hiss) * _swell(t, 0.003, 0.06)


def _guitar(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    out = np.zeros_like(t)
    for n in range(1, 26):
        if n * f > 6500:
            break
        size = abs(np.sin(np.pi * n * 0.21)) / n**1.15
        out += (
            size
            * np.exp(-t * (1.1 + 0.35 * n + 1.2e-3 * n * f / 2))
            * np.sin(2 * np.pi * n * f * t)
        )
    body = np.exp(-t / 0.05) * np.sin(2 * np.pi * 105 * t) * 0.25
    pick = _band(rng.normal(size=len(t)), 800, 4000) * np.exp(-t / 0.005)
    return (out + body + 0.1 * pick) * _swell(t, 0.002, 0.04)


def _trumpet(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    peaks = ((1200, 500, 1.2), (2400, 900, 0.6))
    loud = np.clip(t / 0.045, 0, 1) * (0.85 + 0.15 * np.exp(-t / 0.08))
    start = 1 - 0.015 * np.exp(-t / 0.02)
    phase = 2 * np.pi * np.cumsum(f * start) / RATE
    out = np.zeros_like(t)
    for n in range(1, 22):
        if n * f > 8500:
            break
        out += _formant(n * f, peaks) * loud ** (1 + 0.35 * n) * np.exp(-n / 9) * np.sin(n * phase)
    return out * _swell(t, 0.01, 0.05)


def _flute(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    wave = 1 + 0.12 * np.sin(2 * np.pi * 5.0 * t) * np.clip((t - 0.1) / 0.2, 0, 1)
    phase = 2 * np.pi * np.cumsum(f * (1 + 0.002 * np.sin(2 * np.pi * 5.0 * t))) / RATE
    sizes = (1.0, 0.35, 0.3, 0.06, 0.04, 0.01)
    out = sum(a * np.sin((n + 1) * phase) for n, a in enumerate(sizes))
    noise = rng.normal(size=len(t))
    breath = 0.06 * _band(noise, 0.7 * f, 4 * f) + 0.012 * noise + 0.03 * _band(noise, 40, 120)
    puff = 1 + 2 * np.exp(-t / 0.05)
    return (out * wave + breath * puff) * _swell(t, 0.1, 0.06)


def _organ(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    bars = ((0.5, 0.6), (1, 1.0), (1.5, 0.5), (2, 0.8), (3, 0.5), (4, 0.5), (6, 0.25), (8, 0.3))
    turn = 2 * np.pi * 6.3 * t
    out = np.zeros_like(t)
    for ratio, size in bars:
        if ratio * f < 7500:
            out += size * np.sin(2 * np.pi * ratio * f * t + 0.004 * ratio * f * np.sin(turn) / 6.3)
    return out * _swell(t, 0.006, 0.015)


def _marimba(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    fall = 0.28 * (440 / f) ** 0.5
    out = np.exp(-t / fall) * np.sin(2 * np.pi * f * t)
    out += 0.3 * np.exp(-t / (fall / 4)) * np.sin(2 * np.pi * 3.98 * f * t)
    out += 0.12 * np.exp(-t / (fall / 10)) * np.sin(2 * np.pi * min(9.8 * f, 7000) * t)
    thump = _band(rng.normal(size=len(t)), 150, 1500) * np.exp(-t / 0.006)
    return (out + 0.15 * thump) * _swell(t, 0.002, 0.02)


def _drums(f: float, seconds: float, rng: np.random.Generator) -> Wave:
    """Return one stroke; f chooses it: bass drum, snare, closed or open cymbal, or tom."""
    t = _time(seconds)
    noise = rng.normal(size=len(t))
    stroke = int(f) % 5
    if stroke == 0:
        pitch = 48 + 90 * np.exp(-t / 0.03)
        out = np.exp(-t / 0.13) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
        out += 0.1 * _band(noise, 1000, 4000) * np.exp(-t / 0.004)
    elif stroke == 1:
        out = 0.5 * np.exp(-t / 0.07) * np.sin(2 * np.pi * 190 * t)
        out += 0.4 * _band(noise, 900, 8000) * np.exp(-t / 0.09)
    elif stroke in (2, 3):
        out = 0.5 * _band(noise, 5000, 20000) * np.exp(-t / (0.035 if stroke == 2 else 0.25))
    else:
        pitch = 110 + 50 * np.exp(-t / 0.05)
        out = np.exp(-t / 0.18) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
        out += 0.08 * _band(noise, 400, 3000) * np.exp(-t / 0.02)
    return out * _swell(t, 0.001, 0.02)


VOICES: dict[str, Callable[[float, float, np.random.Generator], Wave]] = {
    "piano": _piano,
    "guitar": _guitar,
    "trumpet": _trumpet,
    "flute": _flute,
    "organ": _organ,
    "marimba": _marimba,
    "drums": _drums,
}
RANGES = {  # lowest and highest tonic, as MIDI pitches
    "piano": (48, 67),
    "guitar": (43, 60),
    "trumpet": (57, 70),
    "flute": (60, 71),
    "organ": (46, 62),
    "marimba": (55, 72),
}
SCALE = (0, 2, 4, 7, 9, 12)
CHORDS = ("piano", "guitar", "organ")


def note(instrument: str, hertz: float, seconds: float, rng: np.random.Generator) -> Wave:
    """Return one note, float64 mono at 48 kHz, with its peak at 1.

    For drums `hertz` is the number of a stroke.
    """
    out = VOICES[instrument](hertz, seconds, rng)
    return out / max(1e-9, float(np.abs(out).max()))


def passage(instrument: str, seconds: float, rng: np.random.Generator) -> Wave:
    """Return what an instrument plays for a while: a walk over a scale, or a beat.

    Parameters
    ----------
    instrument : a key of `VOICES`
    seconds : length
    rng : where tonic, tempo and steps are drawn from

    Returns
    -------
    ndarray of shape (samples,), float64 mono at 48 kHz, with its peak at 1.
    """
    out = np.zeros(round(seconds * RATE) + RATE)
    beat = float(rng.uniform(0.2, 0.42))
    tonic = int(rng.integers(*RANGES[instrument])) if instrument in RANGES else 0
    step, at, count = int(rng.integers(len(SCALE))), 0.0, 0
    while at < seconds - 0.08:
        length = min(beat * int(rng.choice([1, 1, 2])), seconds - at)
        if instrument == "drums":
            length = min(beat, seconds - at)
            tones = [float((0, 2, 1, 2, 0, 3, 1, 4)[count % 8])]
        else:
            step = int(np.clip(step + rng.integers(-2, 3), 0, len(SCALE) - 1))
            tones = [440 * 2 ** ((tonic + SCALE[step] - 69) / 12)]
            if instrument in CHORDS and count % 3 == 0:
                tones.append(tones[0] * 2 ** (7 / 12))
        for tone in tones:
            piece = note(instrument, tone, max(0.12, length), rng) * rng.uniform(0.8, 1.0)
            start = round(at * RATE)
            out[start : start + len(piece)] += piece
        at, count = at + length, count + 1
    out = out[: round(seconds * RATE)]
    return out / max(1e-9, float(np.abs(out).max()))
