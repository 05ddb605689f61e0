"""Every row once: a batch that is killed at random, run twice at once, and out of disk.

    python benchmarks/batch_kills.py                        # 300 rows, 60 clips, a tenth damaged
    python benchmarks/batch_kills.py --rows 20 --clips 5 --kills 2

Made clips and a tiny model with random weights, so it takes minutes and no download. It kills a
batch (SIGKILL) at random moments and starts it again, with a second one beside it all the time that
wants the same file; then it runs shards at once, a part of them killed; then it runs on a disk that
is full. It fails unless in the end each row has one line, answered alike in all three.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLOURS = ("red", "blue", "white", "black")


def make(folder: Path, rows: int, clips: int, draw: random.Random) -> tuple[Path, Path]:
    """Write a tiny model, clips of which a tenth is damaged, and questions; return model, file."""
    from omnidrop.testing import media, tiny_checkpoint

    model = tiny_checkpoint(folder / "model")
    for number in range(clips):
        path = folder / f"{number:03}.mp4"
        media.mp4(path, seconds=0.5 + 0.1 * (number % 5))
        body = bytearray(path.read_bytes() + f"clip {number}".encode())
        if number % 10 == 9:
            body = body[: len(body) // 3]  # cut off before the index
        path.write_bytes(body)
    questions = folder / "questions.jsonl"
    asked = [
        {"id": f"r{i}", "clip": f"{i % clips:03}.mp4", "question": f"{draw.choice(COLOURS)} {i}?"}
        for i in range(rows)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return model, questions


def start(words: list[str], limit: int | None = None) -> subprocess.Popen[str]:
    """Start `omnidrop batch`; `limit` is the most bytes that a file may have."""

    def few_bytes() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "omnidrop_cli", "batch", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=few_bytes,
    )


def read(*paths: Path) -> dict[str, object]:
    """Return each row's answer or error; fail if a row has two lines or a line is cut."""
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    twice = [name for name, count in Counter(line["id"] for line in lines).items() if count > 1]
    assert not twice, f"rows with two lines: {twice}"
    return {line["id"]: line["answer"] or f"error: {line['cause']}" for line in lines}


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(words: list[str], out: Path, rows: int, kills: int, draw: random.Random) -> int:
    """Kill and restart a batch, with another one beside it; return how often it was killed."""
    done = refused = 0
    for _ in range(kills):
        aim = lines_of(out) + draw.randint(1, max(1, 2 * rows // max(kills, 1)))
        process = start(words)
        other = None
        while process.poll() is None and lines_of(out) < aim:
            if other is None and lines_of(out):
                other = start(words)
            time.sleep(0.01 + draw.random() / 20)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
        if other is not None:
            code = other.communicate()[0] or other.returncode
            refused += code == 2
    print(f"  killed {done} times; {refused} others were told to wait", flush=True)
    final = start(words)
    said = final.communicate()[1]
    assert final.returncode == 6, said
    print(f"  {said.strip().splitlines()[-3:]}")
    return done


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, questions = make(folder, given.rows, given.clips, draw)
        common = [str(questions), "--model", str(model), "--max-new-tokens", "4", "--no-serve"]
        common += ["--method", "uniform", "--budget", "0.5"]

        print("killed at random, another process beside it", flush=True)
        out = folder / "killed.jsonl"
        killed([*common, "--out", str(out)], out, given.rows, given.kills, draw)
        first = read(out)
        assert len(first) == given.rows
        lost = [v for v in first.values() if str(v).startswith("error: The process was killed")]
        failed = sum(str(value).startswith("error") for value in first.values())
        print(f"  {len(first)} rows once, {failed} failed, {len(lost)} of them for being killed")

        print("two shards at once, one of them killed", flush=True)
        out = folder / "parts.jsonl"
        words = [*common, "--out", str(out), "--shard"]
        two = start([*words, "2/2"])
        part = folder / "parts.1of2.jsonl"
        killed([*words, "1/2"], part, given.rows // 2, 2, draw)
        two.communicate()
        parts = read(part, folder / "parts.2of2.jsonl")
        assert parts.keys() == first.keys()
        same = {name for name in first if parts[name] == first[name]}
        print(f"  {len(parts)} rows once, {len(same)} as before", flush=True)
        assert len(same) >= len(first) - len(lost)

        print("a full disk", flush=True)
        out = folder / "full.jsonl"
        room = start([*common, "--out", str(out)], limit=20_000)
        said = room.communicate()[1]
        assert room.returncode == 7, (room.returncode, said)
        assert out.read_bytes().endswith(b"}\n")
        print(f"  exit code 7 after {lines_of(out)} rows: {said.strip().splitlines()[-1]}")
        final = start([*common, "--out", str(out)])
        final.communicate()
        assert read(out).keys() == first.keys()
        print(f"  {lines_of(out)} rows once")
        hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert not hidden, hidden


if __name__ == "__main__":
    main()
