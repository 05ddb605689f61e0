"""A mutation fuzzer for the reading of clips: seeded, and in processes of its own.

    python -m omnidrop.testing.fuzz FOLDER --count 1000 --seed 7

makes one small file of every container, damages copies of them, and reads each as a question would:
opened, its frames, its log-mel. A damaged file may be answered on, or refused by an error about it.
Anything else is a fault: another exception, features that are not finite, output of a library, a
crash of the process, more than 30 seconds, more than 2 GB of memory. Files with faults are kept.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnidrop.errors import OmniDropError
from omnidrop.testing import media

SECONDS, BYTES = 30.0, 2 << 30
_SMALL: dict[str, Any] = {"seconds": 1.2, "size": (64, 48), "fps": 10}
_PCM: dict[str, Any] = {"codec": "pcm_s16le", "rate": 16_000}
_FAST: dict[str, Any] = {"preset": "ultrafast", "g": "5", "bf": "2"}

#: File name -> what writes it.
SEEDS: Mapping[str, Callable[[Path], Path]] = {
    "a.mp4": lambda p: media.mp4(p, **_SMALL, options=_FAST),
    "b.mp4": lambda p: media.faststart_mp4(p, **_SMALL, options=_FAST),
    "c.mp4": lambda p: media.fragmented_mp4(p, **{**_SMALL, "seconds": 2}),
    "a.mov": lambda p: media.mov(p, **{**_SMALL, "sounds": [_PCM]}, options=_FAST),
    "b.mov": lambda p: media.listed_channels(p, **_SMALL),
    "a.mkv": lambda p: media.mkv(p, **_SMALL, options=_FAST),
    "b.mkv": lambda p: media.mkv_without_duration(p, **_SMALL, options=_FAST),
    "a.webm": lambda p: media.webm(p, **_SMALL),
    "b.webm": lambda p: media.webm(p, codec="libvpx", **_SMALL),
    "a.avi": lambda p: media.avi(p, **_SMALL),
    "a.ts": lambda p: media.ts(p, **_SMALL),
    "a.mpg": lambda p: media.write(
        p, codec="mpeg2video", sounds=[{"codec": "mp2"}], **{**_SMALL, "fps": 25}
    ),
    "a.flv": lambda p: media.write(p, codec="flv1", sounds=[{"codec": "libmp3lame"}], **_SMALL),
    "b.flv": lambda p: media.write(p, sounds=[{"codec": "aac"}], **_SMALL),
    "a.wmv": lambda p: media.write(p, codec="wmv2", sounds=[{"codec": "wmav2"}], **_SMALL),
    "a.mxf": lambda p: media.write(
        p,
        codec="mpeg2video",
        sounds=[{"codec": "pcm_s16le", "rate": 48_000}],
        **{**_SMALL, "fps": 25},
    ),
    "a.nut": lambda p: media.write(p, codec="mpeg4", sounds=[_PCM], **_SMALL),
    "a.gif": lambda p: media.gif(p, seconds=1.2, size=(64, 48)),
    "a.apng": lambda p: media.write(p, codec="apng", pixels="rgb24", **_SMALL),
    "a.y4m": lambda p: media.write(p, codec="rawvideo", container="yuv4mpegpipe", **_SMALL),
    "a.mjpeg": lambda p: media.write(p, codec="mjpeg", pixels="yuvj420p", **_SMALL),
    "a.h264": lambda p: media.write(p, options=_FAST, **_SMALL),
    "a.m4v": lambda p: media.write(p, codec="mpeg4", container="m4v", **_SMALL),
    "a.wav": lambda p: media.wav(p, seconds=1, rate=16_000, channels=2),
    "b.wav": lambda p: media.float_wav(p, media.tone(1, 16_000)[0]),
    "a.w64": lambda p: media.audio_only(p, "pcm_s16le", 1.0, rate=16_000),
    "a.flac": lambda p: media.wav(p, seconds=1, rate=16_000),
    "a.mp3": lambda p: media.audio_only(p, "libmp3lame", 1.0),
    "a.ogg": lambda p: media.wav(p, seconds=1, rate=16_000),
    "a.opus": lambda p: media.audio_only(p, "libopus", 1.0, rate=48_000),
    "a.aac": lambda p: media.audio_only(p, "aac", 1.0),
    "a.m4a": lambda p: media.audio_only(p, "aac", 1.0),
    "a.caf": lambda p: media.audio_only(p, "pcm_s16le", 1.0, rate=16_000),
    "b.caf": lambda p: media.audio_only(p, "alac", 1.0),
    "a.aiff": lambda p: media.audio_only(p, "pcm_s16be", 1.0, rate=16_000),
    "a.au": lambda p: media.audio_only(p, "pcm_s16be", 1.0, rate=16_000),
    "a.ac3": lambda p: media.audio_only(p, "ac3", 1.0, rate=48_000),
    "a.wma": lambda p: media.audio_only(p, "wmav2", 1.0),
}

_TELLING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000)


@dataclass(frozen=True)
class Fault:
    """A file that was neither answered on nor refused properly.

    Attributes
    ----------
    file : str
        Name of the mutant, kept in the folder.
    kind : str
        "exception", "not finite", "output", "crash", "slow" or "memory".
    detail : str
    """

    file: str
    kind: str
    detail: str


def mutate(data: bytes, rng: np.random.Generator, other: bytes = b"") -> bytes:
    """Return a damaged copy: one to six changes, half of them near the file's start or end.

    Parameters
    ----------
    data : bytes
        Not empty.
    rng : numpy.random.Generator
    other : bytes
        A file that pieces may be taken from.
    """
    held = bytearray(data)
    for _ in range(int(rng.integers(1, 7))):
        size = max(1, len(held))
        edge = min(size, 600)
        place = int(rng.integers(0, size))
        if rng.random() < 0.5:
            place = int(rng.integers(0, edge)) if rng.random() < 0.7 else size - 1 - int(rng.integers(0, edge))  # fmt: skip  # noqa: E501
        length = int(min(size - place, 1 + rng.exponential(60)))
        change = rng.random()
        if change < 0.25:
            for at in range(place, min(size, place + 1 + int(rng.integers(0, 4)))):
                held[at : at + 1] = bytes([int(rng.integers(0, 256))])
        elif change < 0.4:
            held[place : place + 1] = bytes([held[place] ^ 1 << int(rng.integers(0, 8))])
        elif change < 0.65:
            width = int(rng.choice([1, 2, 4, 8]))
            number = (int(rng.choice(_TELLING)) % (1 << 8 * width)).to_bytes(width, "big")
            held[place : place + width] = number if rng.random() < 0.6 else number[::-1]
        elif change < 0.72:
            held[place : place + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif change < 0.79:
            del held[place : place + length]
        elif change < 0.86:
            held[place:place] = held[place : place + length] * int(rng.integers(1, 4))
        elif change < 0.92:
            held[place : place + length] = bytes(length)
        elif change < 0.96 and other:
            start = int(rng.integers(0, len(other)))
            held[place:place] = other[start : start + int(rng.integers(1, 2000))]
        else:
            del held[max(1, place) :]
    return bytes(held) or b"\0"


def mutants(folder: Path, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of damaged files, the containers in turn.

    Parameters
    ----------
    folder : Path
        Receives the seed files, if they are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, bytes] = {}
    for name, make in SEEDS.items():
        path = folder / name
        data[name] = (path if path.exists() else make(path)).read_bytes()
    names = list(data)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        stem, ending = name.split(".")
        other = data[names[int(rng.integers(0, len(names)))]]
        yield f"{stem}-{seed}-{number:06d}.{ending}", mutate(data[name], rng, other)


def read(path: Path) -> str:
    """Read a file as a question would: "answered", "refused: ...", or a fault's kind and detail.

    Returns
    -------
    str
        Starts with "answered", "refused", "exception" or "not finite".
    """
    import torch

    from omnidrop.clip.clip import open_clip

    try:
        with open_clip(path) as clip:
            frames = sum(len(chunk.frames) for chunk in clip.frame_chunks())
            mel = clip.log_mel()
            if mel is not None and not torch.isfinite(mel).all():
                return "not finite"
            return f"answered: {frames} frames, {0 if mel is None else mel.shape[1]} mel frames"
    except OmniDropError as error:
        return f"refused: {error.what}"
    except Exception as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        return f"exception: {type(error).__name__}: {error} ({where})"


def run(folder: Path, count: int, seed: int, *, keep: bool = True) -> list[Fault]:
    """Read ``count`` damaged files in child processes and return the faults.

    Parameters
    ----------
    folder : Path
        For seeds, in ``seeds``, and for the files with faults.
    keep : bool
        Whether files with faults stay in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = []
    for name, contents in mutants(folder / "seeds", count, seed):
        (folder / name).write_bytes(contents)
        left.append(name)
    faults: list[Fault] = []
    while left:
        found, done = _read_all(folder, left)
        faults += found
        left = left[done:]
    bad = {fault.file for fault in faults}
    for path in folder.glob(f"*-{seed}-*.*"):
        if not keep or path.name not in bad:
            path.unlink()
    return faults


def _read_all(folder: Path, names: list[str]) -> tuple[list[Fault], int]:
    """Read files in one child process; return faults, and how many files were read."""
    stderr = folder / "stderr.txt"
    with stderr.open("wb") as errors:
        child = subprocess.run(
            [sys.executable, "-m", "omnidrop.testing.fuzz", "--child", str(folder)],
            input="\n".join(names).encode(),
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
    faults = []
    rows = [json.loads(line) for line in child.stdout.decode().split("\n") if line]
    for row in rows:
        name, outcome = row["file"], row["outcome"]
        if not outcome.startswith(("answered", "refused")):
            kind, _, detail = outcome.partition(": ")
            faults.append(Fault(name, kind, detail))
        if row["output"]:
            faults.append(Fault(name, "output", row["output"]))
        if row["seconds"] > SECONDS:
            faults.append(Fault(name, "slow", f"{row['seconds']:.0f} s"))
        if row["bytes"] > BYTES:
            faults.append(Fault(name, "memory", f"{row['bytes'] / 2**30:.1f} GiB"))
    done = len(rows)
    if done < len(names):
        last = stderr.read_text("utf-8", "replace")
        kind = "slow" if "Timeout (" in last else "crash"
        faults.append(Fault(names[done], kind, f"exit code {child.returncode}: {last[-2000:]}"))
        done += 1
    return faults, done


def _child(folder: Path) -> None:
    """Read the files named on stdin; print one line of JSON for each."""
    import torch

    torch.set_num_threads(1)
    for name in sys.stdin.read().split("\n"):
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
        held, before, said = _reset_peak(), time.perf_counter(), os.fstat(2).st_size
        outcome = read(folder / name)
        sys.stderr.flush()
        output = ""
        if os.fstat(2).st_size > said:
            with suppress(OSError):
                output = (folder / "stderr.txt").read_bytes()[said:].decode("utf-8", "replace")
        row = {
            "file": name,
            "outcome": outcome,
            "seconds": time.perf_counter() - before,
            "bytes": _peak() - held,
            "output": output[:2000],
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        faulthandler.cancel_dump_traceback_later()


def _status(name: str) -> int:
    """Return a line of the kernel's account of this process, in bytes; 0 where there is none."""
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        if found:
            return int(found[1]) << 10
    return 0


def _peak() -> int:
    return _status("VmHWM")


def _reset_peak() -> int:
    """Let the peak start anew, where the system can; return what is held now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer; the exit code is 1 if there are faults."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        _child(given.folder)
        return 0
    faults = run(given.folder, given.count, given.seed)
    for fault in faults:
        sys.stdout.write(f"{fault.file}: {fault.kind}: {fault.detail}\n")
    sys.stdout.write(f"{given.count} files, {len(faults)} faults\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
