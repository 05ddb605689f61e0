"""Render the note banks with FluidSynth and the sound font FluidR3_GM.

Needed only to make the banks again. From `samples/`, the training notes and the test notes:

    python -m avsynth.fluid --out /somewhere/train.npz
    python -m avsynth.fluid --out avsynth/bank/test.flac --split test --compact

A bank holds single notes, which `sound` joins into phrases. The two splits share no pitch: every
fourth semitone belongs to the test split. The test drums come from another kit, which shares some
strokes with the training kit. FluidR3_GM is (c) Frank Wen under the MIT licence. On Debian install
`fluidsynth` and `fluid-soundfont-gm`.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from .world import INSTRUMENTS

RATE = 16_000
FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SLOT_S, HELD_S, KEPT_S = 2.0, 1.0, 1.1
PROGRAMS = {  # general-MIDI programs (from 0); those of the test split come first
    "piano": (0, 1),
    "guitar": (24, 25),
    "violin": (40,),
    "trumpet": (56,),
    "flute": (73,),
    "organ": (16, 19, 17),
    "marimba": (12,),
    "drums": (8, 0, 16, 32),
}
RANGES = {
    "piano": (38, 90),
    "guitar": (40, 78),
    "violin": (55, 93),
    "trumpet": (54, 83),
    "flute": (60, 94),
    "organ": (38, 86),
    "marimba": (47, 89),
}
KIT = (35, 36, 38, 40, 41, 42, 43, 45, 46, 47, 48, 49, 50, 51)


def note_list(instrument: str, split: str, compact: bool) -> list[tuple[int, int, int]]:
    """Return (program, pitch, velocity) of every note of an instrument in a split."""
    programs = PROGRAMS[instrument]
    if instrument == "drums":
        kits = programs[:1] if split == "test" else programs[1:2] if compact else programs[1:]
        pitches = (36, 38, 42, 45, 46, 48) if compact else KIT
        return [
            (k, p, v) for k in kits for p in pitches for v in ((100,) if compact else (70, 115))
        ]
    low, high = RANGES[instrument]
    pitches = [p for p in range(low, high + 1) if (p % 4 == 1) == (split == "test")]
    if compact:
        pitches = pitches[1::2] if split == "test" else pitches[1::5]
        programs = programs[: 2 if instrument in ("organ", "guitar") else 1]
        pitches = pitches[:: len(programs)]
    return [(k, p, v) for k in programs for p in pitches for v in ((95,) if compact else (65, 112))]


def _quantity(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | (value & 0x7F))
    return bytes(reversed(out))


def midi_file(notes: list[tuple[int, int, int]], drums: bool) -> bytes:
    """Return a type-0 MIDI file (480 ticks a second) with one note per slot."""
    channel = 9 if drums else 0
    track, wait = b"", 0
    for program, pitch, velocity in notes:
        track += _quantity(wait) + bytes([0xC0 | channel, program])
        track += _quantity(0) + bytes([0x90 | channel, pitch, velocity])
        track += _quantity(int(480 * HELD_S)) + bytes([0x80 | channel, pitch, 0])
        wait = int(480 * (SLOT_S - HELD_S))
    track += _quantity(wait) + b"\xff\x2f\x00"
    tempo = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    body = tempo + track
    return (
        b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(body)) + body
    )


def render(instrument: str, split: str, compact: bool, font: str = FONT) -> np.ndarray:
    """Render all notes of an instrument: int16 (notes, samples), 16 kHz."""
    notes = note_list(instrument, split, compact)
    with tempfile.TemporaryDirectory() as folder:
        mid, wav = Path(folder, "n.mid"), Path(folder, "n.wav")
        mid.write_bytes(midi_file(notes, instrument == "drums"))
        subprocess.run(
            [
                "fluidsynth",
                "-niq",
                "-R",
                "0",
                "-C",
                "0",
                "-g",
                "0.8",
                "-r",
                str(RATE),
                "-F",
                str(wav),
                font,
                str(mid),
            ],
            check=True,
            capture_output=True,
        )
        audio = soundfile.read(wav)[0].mean(axis=1)
    slot, kept = int(SLOT_S * RATE), int(KEPT_S * RATE)
    audio = np.pad(audio, (0, max(0, slot * len(notes) - len(audio))))
    cut = np.stack([audio[i * slot : i * slot + kept] for i in range(len(notes))])
    peak = np.abs(cut).max(axis=1, keepdims=True)
    keep = peak[:, 0] > 1e-3
    cut, peak = cut[keep], peak[keep]
    return np.rint(cut / peak * 24_000).astype(np.int16)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--compact", action="store_true", help="a few notes only, as committed")
    parser.add_argument("--font", default=FONT)
    args = parser.parse_args()
    bank = {name: render(name, args.split, args.compact, args.font) for name in INSTRUMENTS}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".npz":
        np.savez(args.out, **bank)
    else:  # one FLAC: the notes one after another; `sound.load_bank` knows the counts from the name
        counts = "-".join(str(len(bank[name])) for name in INSTRUMENTS)
        path = args.out.with_name(f"{args.out.stem}-{counts}{args.out.suffix}")
        soundfile.write(path, np.concatenate([bank[n].reshape(-1) for n in INSTRUMENTS]), RATE)
    print({name: len(notes) for name, notes in bank.items()})


if __name__ == "__main__":
    main()
