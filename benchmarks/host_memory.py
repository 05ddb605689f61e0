"""Reported and promised memory of the host, against the kernel's own figures.

Writes a checkpoint with random weights in the published layout and bfloat16, and asks in a process
of its own for every precision, once plainly and once under `--fit-memory`. Three figures of the
kernel are compared with the report's peak: the process's highest mark, which is reset when the
question begins (VmHWM, what `/usr/bin/time` shows), and, sampled from outside, the most of the
process's own memory and of all resident pages in that time.

    python benchmarks/host_memory.py [--layers 12 --hidden 1024] [--fit 1.15] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT, finish, random_thinker, table

from omnidrop.models.qwen2_5_omni.tiny import hub_keys, hub_layout
from omnidrop.models.tiny_weights import write_shards
from omnidrop.testing import media

QUESTION = "What is heard, and what is shown?"
PRECISIONS = {
    "fp32": ("--dtype", "float32"),
    "bf16": ("--dtype", "bfloat16"),
    "auto": (),
    "4-bit": ("--4bit",),
    "8-bit": ("--8bit",),
}


@dataclass(frozen=True)
class Sample:
    """Resident bytes of a process at a time: its own, of files, and the mark since its reset."""

    own: int
    files: int
    mark: int


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes
    ----------
    answer : dict
        The document that `--json` prints.
    mark : int
        The kernel's mark when it ended.
    resident, own : int
        Most resident bytes, and most of the process's own, while it answered.
    while_loading : int
        Most of the process's own before that.
    """

    answer: dict[str, Any]
    mark: int
    resident: int
    own: int
    while_loading: int

    @property
    def reported(self) -> int:
        """The report's peak."""
        return int(self.answer["trace"]["memory"]["host"])


def write_checkpoint(folder: Path, layers: int, hidden: int, vocab: int) -> Path:
    """Write a checkpoint of the 3B's proportions: heads of 128, an MLP 5.4 times as wide."""
    hub_layout(folder)  # for its tokenizer, settings and config
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    model = random_thinker(
        layers=layers,
        hidden=hidden,
        heads=hidden // 64,
        kv_heads=max(1, hidden // 512),
        intermediate=hidden * 43 // 8,
        vision=(8, 640, 1710),
        vocab=vocab,
        dtype=torch.bfloat16,
    )
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = "bfloat16"
    plain = model.config.to_dict()
    told = config["thinker_config"] | {"torch_dtype": "bfloat16"}
    for part in ("text_config", "vision_config", "audio_config"):
        told[part] |= {key: plain[part][key] for key in told[part] if key in plain[part]}
    rope = plain["text_config"]["rope_parameters"]
    told["text_config"]["rope_scaling"] = {**told["text_config"]["rope_scaling"], **rope}
    config["thinker_config"] = told
    (folder / "config.json").write_text(json.dumps(config))
    write_shards(folder, hub_keys(model), 3)
    return folder


def ask(folder: Path, clip: Path, *flags: str) -> Run:
    """Ask in a process of its own, and watch it from outside."""
    words = [sys.executable, "-m", "omnidrop_cli", "ask", str(clip), QUESTION, "--json"]
    words += ["--model", str(folder), "--device", "cpu", "--max-new-tokens", "8", *flags]
    samples: list[Sample] = []
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        environment = {**os.environ, "OMNIDROP_CONFIG": os.devnull, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(words, stdout=out, stderr=err, cwd=ROOT, env=environment)
        while process.poll() is None:
            if (sample := look(process.pid)) is not None:
                samples.append(sample)
            time.sleep(0.005)
        out.seek(0)
        err.seek(0)
        text, told = out.read(), err.read()
    if not text.startswith("{"):  # random weights may well answer with nothing: exit code 4
        raise SystemExit(f"{' '.join(words)}\n{told}")
    # The mark only falls where it is reset: when the question begins.
    marks = [sample.mark for sample in samples]
    begin = max((i for i in range(1, len(marks)) if marks[i] < marks[i - 1]), default=0)
    before, during = samples[:begin], samples[begin:]
    return Run(
        answer=json.loads(text),
        mark=during[-1].mark,
        resident=max(s.own + s.files for s in during),
        own=max(s.own for s in during),
        while_loading=max((s.own for s in before), default=0),
    )


def look(pid: int) -> Sample | None:
    """Return what a process holds; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found = {name: int(value.split()[0]) * 1024 for name, value in _sizes(lines)}
        return Sample(found["RssAnon"] + found["RssShmem"], found["RssFile"], found["VmHWM"])
    except (OSError, KeyError, ValueError):
        return None


def _sizes(lines: list[str]) -> list[tuple[str, str]]:
    wanted = ("RssAnon:", "RssShmem:", "RssFile:", "VmHWM:")
    return [(line.split(":")[0], line.split()[1]) for line in lines if line.startswith(wanted)]


def row(name: str, run: Run) -> dict[str, Any]:
    """Return the figures of a run."""
    memory = run.answer["trace"]["memory"]
    return {
        "precision": name,
        "reported": run.reported,
        "mark": run.mark,
        "resident": run.resident,
        "own": run.own,
        "while_loading": run.while_loading,
        "off": run.reported / run.mark - 1,
        **{key: memory.get(key) for key in ("weights", "mapped", "measured")},
    }


def promise(run: Run) -> float | None:
    """Return the bytes that `--fit-memory` promised."""
    for notice in run.answer["trace"]["notices"]:
        if notice.startswith("--fit-memory") and "expected" in notice:
            amount, unit = notice.rpartition("expected ")[2].rstrip(".").split()[:2]
            return float(amount) * {"MB": 1e6, "GB": 1e9}[unit]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the clip")
    parser.add_argument("--fit", type=float, default=1.15, help="limit, as a share of the peak")
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=None)
    parser.add_argument("--keep", type=Path, help="where to write, or find, the checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        if not (folder / "config.json").is_file():
            write_checkpoint(folder, options.layers, options.hidden, options.vocab)
        clip = media.mp4(Path(temporary) / "clip.mp4", size=(320, 240), seconds=options.seconds)
        ask(folder, clip, "--budget", "0.3")  # warms the system's cache of the files
        rows = []
        for name in options.precisions or PRECISIONS:
            flags = PRECISIONS[name]
            found = row(name, ask(folder, clip, *flags, "--budget", "1.0"))
            limit = f"{found['reported'] * options.fit / 1e6:.0f}MB"
            fitted = ask(folder, clip, *flags, "--fit-memory", limit)
            kept = promise(fitted)
            found |= {"limit": limit, "promised": kept, "fitted_mark": fitted.mark}
            found |= {"promise_off": kept / fitted.mark - 1 if kept else None}
            rows.append(found)
    weights = ("weights", "mapped", "loading")
    table(
        ("", "reported", "kernel", "off", *weights, "promised", "took", "off"),
        [
            (
                r["precision"],
                *(_mb(r[key]) for key in ("reported", "mark")),
                f"{r['off']:+.1%}",
                *(_mb(r[key]) for key in ("weights", "mapped", "while_loading")),
                *(_mb(r[key]) for key in ("promised", "fitted_mark")),
                "–" if r["promise_off"] is None else f"{r['promise_off']:+.1%}",
            )
            for r in rows
        ],
    )
    finish({"rows": rows})


def _mb(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
