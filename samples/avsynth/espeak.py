"""Make the bank of spoken words with eSpeak NG.

Needed only to make the bank again; on Debian install `espeak-ng`. From `samples/`:

    python -m avsynth.espeak --out avsynth/bank

Every voice of `speech.VOICES` says every word of `world.WORDS`. A recording is trimmed, brought to
one level without high peaks, and rounded to 12 bits, since FLAC stores unused bits in no space.
"""

from __future__ import annotations

import argparse
import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from .speech import LEVEL, RATE, SLOT_SAMPLES, Voice, file_name, voices
from .world import WORDS

BEGIN, END = 0.02, 0.04
"""A recording begins and ends where it reaches these shares of its peak."""
PEAK = 0.5
"""Plosives are limited to about this."""
STEP = 16
"""Samples are multiples of this."""


def said(voice: Voice, text: str) -> np.ndarray:
    """Return a word as eSpeak NG says it, float64 (samples,), 16 kHz, untrimmed."""
    import av

    options = ["-v", voice.name, "-p", str(voice.pitch), "-s", str(voice.speed)]
    command = ["espeak-ng", *options, "--stdout", text]
    done = subprocess.run(command, check=True, capture_output=True)
    if done.stderr:  # an unknown variant is only a remark, and another voice speaks
        raise SystemExit(f"espeak-ng -v {voice.name}: {done.stderr.decode().strip()}")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(io.BytesIO(done.stdout)) as box:
        frames = [f for frame in box.decode(audio=0) for f in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([f.to_ndarray().reshape(-1) for f in frames]).astype(np.float64)


def levelled(sound: np.ndarray) -> np.ndarray:
    """Return a sound whose root mean square is `LEVEL`."""
    return sound * (LEVEL / np.sqrt((sound**2).mean()))


def trimmed(sound: np.ndarray) -> np.ndarray:
    """Return a recording without silence around it, levelled, int16 (`SLOT_SAMPLES`,).

    Raises
    ------
    SystemExit
        If it is too long for its place.
    """
    size = np.abs(sound) / np.abs(sound).max()
    sound = sound[np.flatnonzero(size > BEGIN)[0] : np.flatnonzero(size > END)[-1] + 1]
    if len(sound) > SLOT_SAMPLES:
        raise SystemExit(f"{len(sound)} samples are more than {SLOT_SAMPLES}: speak faster.")
    edge = np.minimum(1.0, np.arange(1, len(sound) + 1) / 80)
    sound = sound * edge * edge[::-1]
    sound = np.tanh(levelled(sound) / PEAK) * PEAK
    whole = np.rint(levelled(sound) * 32768 / STEP).astype(np.int16) * STEP
    return np.pad(whole, (0, SLOT_SAMPLES - len(whole))).astype(np.int16)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the bank")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for test in (False, True):
        slots = [trimmed(said(voice, text)) for voice in voices(test) for text in WORDS]
        path = args.out / file_name(test)
        soundfile.write(path, np.concatenate(slots), RATE, compression_level=1.0)
        longest = max(int(np.flatnonzero(slot)[-1]) for slot in slots) / RATE
        print(f"{path}: {len(slots)} recordings of up to {longest:.2f} s, {path.stat().st_size} B")


if __name__ == "__main__":
    main()
