"""Throughput of the HTTP server with several clients, against `omnidrop batch` on the same rows.

Both sides answer the same questions about the same clips with one model, which is loaded once. The
batch side is `omnidrop.batch.answering.Answerer`, which is what `omnidrop batch` runs; the server
side is a fresh server, asked by clients in a process of their own, each of which sends its next
question when it has the answer to the one before. Nothing is kept from one run to the next. The
sides run in turns (A B A B …); the ratio is the median of the rounds' ratios. Model and batch run
in threads that end: OpenMP keeps a team for each thread that has computed, and with more teams than
cores none of them spins, so a team that the batch left behind would slow the server down.

Every answer of the server must be that of the batch, and that of a single client.

    python benchmarks/serve.py [--clients 8] [--clips 24] [--rounds 5]
    python benchmarks/serve.py --model 3b --folder ~/clips --question "What happens?"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from common import finish, in_turns, median, table

import omnidrop
from omnidrop.batch.answering import Answerer, AnswerOptions
from omnidrop.batch.rows import Row
from omnidrop.engine.model import Model
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.serving.server import http_server
from omnidrop.serving.settings import HttpSettings
from omnidrop.serving.warm import WarmModel
from omnidrop.testing import media

QUESTIONS = ("What instrument plays first?", "Which shape appears last?")
TARGET = 0.9


@dataclass(frozen=True)
class Run:
    """One side's seconds and answers, by row."""

    seconds: float
    answers: dict[str, str]


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--folder", type=Path, help="clips; default: some are made")
    parser.add_argument("--question", action="append")
    parser.add_argument("--clips", type=int, default=24, help="clips that are made")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask_all(options.ask, json.load(sys.stdin), options.clients)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or made_clips(Path(made), options.clips, options.seconds)
        compare(options, folder)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run both sides in turns, and tell."""
    model = in_own_thread(lambda: omnidrop.load(options.model))
    clips = sorted(path for path in folder.iterdir() if path.is_file())
    questions = options.question or QUESTIONS
    rows = [
        Row(f"{clip.name} {number}", clip, question)
        for clip, (number, question) in product(clips, enumerate(questions))
    ]
    tokens = options.max_new_tokens
    single = served(model, folder, rows, tokens, 1)
    runs = in_turns(
        {
            "batch": lambda: in_own_thread(lambda: batched(model, rows, tokens)),
            "server": lambda: served(model, folder, rows, tokens, options.clients),
        },
        options.rounds + 1,
    )
    batch, server = runs["batch"][1:], runs["server"][1:]  # the first round warms up
    for run in (*runs["batch"], *runs["server"]):
        wrong = [row for row, answer in run.answers.items() if answer != single.answers[row]]
        assert not wrong, f"other answers than a single client's: {wrong}"
    ratios = [b.seconds / s.seconds for b, s in zip(batch, server, strict=True)]
    each = {name: median([run.seconds for run in side]) for name, side in
            (("batch", batch), (f"server, {options.clients} clients", server))}  # fmt: skip
    each["server, 1 client (once)"] = single.seconds
    table(
        ("", "s", "rows/s"),
        [(name, f"{took:.2f}", f"{len(rows) / took:.2f}") for name, took in each.items()],
    )
    ratio = median(ratios)
    print(f"throughput of the server over batch's: {ratio:.2f} (target {TARGET})")
    finish(
        {
            "model": options.model,
            "rows": len(rows),
            "clips": len(clips),
            "clients": options.clients,
            "seconds": each,
            "ratios": [round(one, 3) for one in ratios],
            "ratio": round(ratio, 3),
        }
    )


def in_own_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` makes in a thread that has ended by then."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def made_clips(folder: Path, count: int, seconds: float) -> Path:
    """Write clips with different pictures and tones; return the folder."""
    for index in range(count):
        sound = [{"hertz": 220 + 20 * index}]
        path = folder / f"{index:03}.mp4"
        media.write(path, seconds=seconds, fps=8, size=(224, 160), sounds=sound, first=50 * index)
    return folder


def batched(model: Model, rows: list[Row], tokens: int) -> Run:
    """Answer all rows as `omnidrop batch` does."""
    settings = AnswerOptions(generate=GenerateOptions(max_new_tokens=tokens), anyway=True)
    began = time.perf_counter()
    records = list(Answerer(settings, model=model).answer(rows))
    return Run(time.perf_counter() - began, {one["id"]: one["text"] for one in records})


def served(model: Model, folder: Path, rows: list[Row], tokens: int, clients: int) -> Run:
    """Answer all rows over HTTP, with a fresh server."""
    warm = WarmModel(LoadOptions(), None, load=lambda options, progress: model)
    bodies = {
        row.id: {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": row.clip.name}},
                        {"type": "text", "text": row.question},
                    ],
                }
            ],
            "max_tokens": tokens,
            "omnidrop": {"anyway": True},
        }
        for row in rows
    }
    with http_server(warm, HttpSettings(port=0, root=folder, queue=clients)) as url:
        command = [sys.executable, __file__, "--ask", url, "--clients", str(clients)]
        done = subprocess.run(
            command, input=json.dumps(bodies), capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(found["seconds"], found["answers"])


def ask_all(url: str, bodies: dict[str, dict], clients: int) -> dict[str, object]:
    """Ask with several clients at a time, in the order of the rows; runs in its own process."""
    import httpx

    with httpx.Client(base_url=url, timeout=600) as client:
        client.get("/health")

        def ask(row: str) -> tuple[str, str]:
            reply = client.post("/v1/chat/completions", json=bodies[row])
            reply.raise_for_status()
            return row, reply.json()["choices"][0]["message"]["content"]

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = dict(pool.map(ask, bodies))
        return {"seconds": time.perf_counter() - began, "answers": answers}


if __name__ == "__main__":
    main()
