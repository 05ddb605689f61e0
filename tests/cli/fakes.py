"""A model that answers at once, in place of `omnidrop.load`: for interrupts, failures and reports.

python tests/cli/fakes.py ask clip.mp4 "What plays?"     # the command line on the fake model
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omnidrop
from omnidrop.errors import MediaError, MemoryShortError
from omnidrop.recommended import SAFE, Recommended
from omnidrop.report.trace import Answer, Choice, ChunkTrace, Memory, Moment, Stage, Trace, Used

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEXT = "A piano plays first; the strings come in at 0:24."


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a child: UTF-8, no OMNIDROP_ variable of the person's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMNIDROP_", "COLUMNS"))}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | {"PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", "TERM": "xterm"} | extra


def make_trace(
    question: str = "What instrument plays first?",
    *,
    path: str = "concert.mp4",
    layers: int = 28,
    chunks: int = 30,
    budget: float = 0.3,
    video: int = 168,
    audio: int = 50,
    relevance: bool = True,
    notices: tuple[str, ...] = (),
    reused: bool = False,
) -> Trace:
    """Return a trace with the shape that the sigmoid schedule gives."""
    draw = random.Random(7)
    weights = [
        math.exp(-(((i - 0.42 * chunks) / max(0.05 * chunks, 1)) ** 2)) + 0.15 * draw.random()
        for i in range(chunks)
    ]
    share = [w / sum(weights) for w in weights]
    curve = [
        1.0 if budget >= 1 else 0.45 / (1 + math.exp(20 * (i / layers - 0.62))) + 0.03
        for i in range(layers)
    ]
    scale = 1.0 if budget >= 1 else budget * layers / sum(curve)
    parts = []
    for i in range(chunks):
        bend = share[i] * chunks

        def kept(total: int, gain: float, bend: float = bend) -> tuple[int, ...]:
            if budget >= 1:
                return (total,) * layers
            line = []
            for layer, height in enumerate(curve):
                late = max(0.0, (layer / layers - 0.45) / 0.55)
                part = height * scale * gain * (1 - late + late * bend)
                line.append(min(total, round(total * part)))
            return tuple(min(line[: i + 1]) for i in range(layers))

        parts.append(
            ChunkTrace(
                2.0 * i,
                2.0 * i + 2.0,
                kept(audio, 1.25),
                kept(video, 0.93),
                audio,
                video,
                share[i] if relevance else None,
            )
        )
    kept_audio = tuple(sum(c.audio[i] for c in parts) for i in range(layers))
    kept_video = tuple(sum(c.video[i] for c in parts) for i in range(layers))
    total = (audio + video) * chunks
    both = [a + v for a, v in zip(kept_audio, kept_video, strict=True)]
    realised = sum(both) / (layers * total) if total else 1.0
    return Trace(
        method={
            "name": "omnidrop",
            "budget": budget,
            "cache": "own",
            "diversity": 0.2,
            "rows": "question",
            "schedule": "sigmoid",
            "video_group": 4,
            "plan": {"p_init": 0.0, "p_final": 0.2031, "entry_ratio": 0.45, "t_mid": 0.5},
        },
        model={
            "name": "Qwen/Qwen2.5-Omni-7B",
            "family": "Qwen2.5-Omni",
            "demo": False,
            "dtype": "bfloat16",
            "device": "cuda:0",
            "attention": "sdpa",
            "quantization": None,
            "text": {"layers": layers, "hidden": 3584, "heads": 28, "kv_heads": 4},
            "parameters": 8_930_000_000,
        },
        clip={
            "path": path,
            "duration": 2.0 * chunks,
            "start": 0.0,
            "span": 2.0 * chunks,
            "format": "mov,mp4",
            "fps": 2.0,
            "frames": 4 * chunks,
            "size": (252, 448),
            "grid": (2 * chunks, 18, 32),
            "identity": "5a3c9e1f",
            "sampling": {"fps": 2.0, "max_frames": 768, "max_pixels": None},
        },
        settings={
            "question": question,
            "system": None,
            "max_new_tokens": 128,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "versions": {"omnidrop": "0.1.0", "torch": "2.13.0"},
        },
        text_tokens=61,
        audio_tokens=audio * chunks,
        video_tokens=video * chunks,
        asked_budget=budget,
        realised_budget=realised,
        planned=tuple(both),
        kept_audio=kept_audio,
        kept_video=kept_video,
        chunks=tuple(parts),
        stages=(
            Stage("open", 0.031, reused=reused),
            Stage("sound", 0.441, reused=reused),
            Stage("audio tower", 0.131, reused=reused),
            Stage("frames", 1.612, reused=reused, overlapped=not reused),
            Stage("waiting for frames", 0.712, reused=reused),
            Stage("vision tower", 0.982, reused=reused),
            Stage("prompt", 0.0042),
            Stage("entry", 0.0042),
            Stage("prefill", 0.563),
            Stage("selection", 0.041, within="prefill"),
            Stage("answer", 0.429),
        ),
        ttft=3.382 if not reused else 0.585,
        tokens_per_second=29.2,
        memory=Memory(2_910_000_000, 19_450_000_000, 112_300_000, 374_600_000),
        flops_prefill=31.3e12,
        flops_prefill_unpruned=104.9e12,
        notices=notices,
        moments=(Moment(22.0, 30.0, 0.71), Moment(4.0, 6.0, 0.08)) if relevance else (),
        used=Used(
            frames=4 * chunks if video else 0,
            video_seconds=2.0 * chunks if video else 0.0,
            audio_seconds=2.0 * chunks if audio else 0.0,
        ),
    )


@dataclass
class FakeSession:
    """Answers every question in the same way; a question can ask for a failure."""

    path: Path
    asked: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    prefixes: list[Any] = field(default_factory=list)

    @property
    def is_encoded(self) -> bool:
        return bool(self.asked)

    def close(self) -> None:
        self.log.append(f"close {self.path.name}")

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        question: str,
        *,
        earlier: Any = (),
        method: Any,
        choices: Any,
        options: Any,
        system: str | None,
        on_text: Any,
        progress: Any,
        limits: Any,
        check: bool = False,
        anyway: bool = False,
        evidence: bool = False,
    ) -> Answer:
        after = f" after {len(earlier)}" if earlier else ""
        self.log.append(f"ask {self.path.name} {question}{after}")
        if "memory" in question:
            raise MemoryShortError("Not enough memory.", hint="Lower --max-pixels.")
        if "bug" in question:
            raise RuntimeError("tensor of the wrong shape")
        if "interrupt" in question:
            raise KeyboardInterrupt
        pause = float(os.environ.get("FAKE_PAUSE", "0"))
        for i in range(11):
            if progress is not None:
                progress("prefill", i, 10)
            time.sleep(pause / 10)
        text = choices[0] if choices else TEXT
        if on_text is not None:
            for piece in text.split(" "):
                on_text(piece + " ")
                time.sleep(pause / 20)
        trace = make_trace(
            question,
            path=str(self.path),
            budget=method.budget if method is not None else 0.3,
            reused=bool(self.asked),
            chunks=int(os.environ.get("FAKE_CHUNKS", "30")),
            layers=int(os.environ.get("FAKE_LAYERS", "28")),
            notices=("The file ends at 0:58 of 1:00; the answer is about what is there.",)
            if "cut" in self.path.name
            else (),
        )
        self.asked.append(question)
        odds = [2.0**-i for i in range(len(choices))]
        other = "A violin." if "other" in question else text
        return Answer(
            text,
            tuple(range(12)),
            "choice" if choices else "stop token",
            trace,
            question,
            tuple(
                Choice(c, p / sum(odds), -1.0 - i)
                for i, (c, p) in enumerate(zip(choices, odds, strict=True))
            ),
            unpruned_text=other if check else None,
            probability=odds[0] / sum(odds) if choices else 0.923,
            probability_source="calibrated on 600 questions of AVSynth",
            choice_mass=0.83 if choices else None,
        )


@dataclass
class FakeModel:
    """Opens anything that exists, or that the command has opened already."""

    log: list[str] = field(default_factory=list)
    recommended: Recommended = SAFE
    spans: list[tuple[float | None, float | None]] = field(default_factory=list)
    info: Any = field(default_factory=lambda: SimpleNamespace(name="tiny", demo=False))

    def prepare(self, path: Path, options: Any = None) -> Any:
        if not path.exists():
            raise MediaError("There is no such file.", path=path)
        return SimpleNamespace(path=path, close=lambda: None)

    def open(self, clip: Any, options: Any = None) -> FakeSession:
        path = Path(getattr(clip, "path", clip))
        if not path.exists():
            raise MediaError("There is no such file.", path=path)
        self.log.append(f"open {path.name}")
        self.spans.append((options.start, options.end) if options is not None else (None, None))
        return FakeSession(path, log=self.log)


def install(set_attribute: Any = setattr) -> FakeModel:
    """Put the fake in place of `omnidrop.load`; return it, with a log of what was asked of it."""
    model = FakeModel()

    def load(options: Any, progress: Any = None) -> FakeModel:
        model.log.append(f"load {options.model}")
        return model

    set_attribute(omnidrop, "load", load)
    return model


if __name__ == "__main__":
    from omnidrop_cli.main import main

    install()
    main(sys.argv[1:])
