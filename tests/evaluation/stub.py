"""A model that needs no weights: it opens any file and answers by a rule, with a small Trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from omnidrop.clip.clip import ClipOptions
from omnidrop.clip.specs import VideoSpec
from omnidrop.errors import BudgetError, MediaError, OutsideError
from omnidrop.models.world import World
from omnidrop.report.trace import Answer, Choice, Memory, Stage, Trace

LAYERS, TOKENS = 4, 100

#: (question, method, seed) → what the model says, or raises.
Rule = Callable[[str, Any, int], str]


def make_trace(method: Any, question: str, identity: str, seed: int) -> Trace:
    kept = (round(TOKENS * method.budget),) * LAYERS
    return Trace(
        method={"name": method.name, **method.settings(), "plan": {"settled": 1}},
        model={"name": "stub"},
        clip={"identity": identity},
        settings={"question": question, "seed": seed, "versions": {"omnidrop": "0"}},
        text_tokens=10,
        audio_tokens=40,
        video_tokens=60,
        asked_budget=method.budget,
        realised_budget=method.budget,
        planned=kept,
        kept_audio=kept,
        kept_video=(0,) * LAYERS,
        chunks=(),
        stages=(Stage("prefill", 0.5 * method.budget), Stage("selection", 0.01, within="prefill")),
        ttft=0.6,
        tokens_per_second=None,
        memory=Memory(1000, None, int(800 * method.budget), 800),
        flops_prefill=1e6 * method.budget,
        flops_prefill_unpruned=1e6,
    )


@dataclass
class StubSession:
    model: StubModel
    path: Path
    clip: Any = None

    def __enter__(self) -> StubSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.log.append(("close", self.path.name))

    def encode(self, *, video_attention: bool = False) -> None:
        self.model.log.append(("encode", self.path.name, video_attention))
        if "unreadable" in self.path.name:
            raise MediaError("Damaged in the middle.", path=self.path)

    def outside(self, question: str, choices: Any = ()) -> OutsideError | None:
        world = self.model.adapter.world
        return None if world is None else world.check("stub", question, choices)

    def ask(
        self,
        question: str,
        *,
        method: Any,
        choices: Any,
        options: Any,
        system: Any,
        reuse: bool,
        anyway: bool,
    ) -> Answer:
        assert anyway, "the questions' own words were looked at before"
        self.model.log.append(("ask", self.path.name, question, method.name, method.budget))
        if method.budget < self.model.lowest:
            raise BudgetError("Too low.", reachable=(self.model.lowest, 1.0))
        text = self.model.rule(question, method, options.seed)
        trace = make_trace(method, question, self.clip.identity, options.seed)
        ranked = tuple(Choice(c, 1 / len(choices), -1.0) for c in choices)
        return Answer(choices[0] if choices else text, (1,), "stop token", trace, question, ranked)


@dataclass
class StubModel:
    rule: Rule = lambda question, method, seed: "yes"
    lowest: float = 0.0
    world: World | None = None
    log: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = torch.arange(12.0).reshape(4, 3)
        self.info = SimpleNamespace(
            name="stub",
            family="stub",
            demo=False,
            dtype="float32",
            device="cpu",
            attention="sdpa",
            quantization=None,
            positions=None,
            parameters=12,
            text=SimpleNamespace(vocab=4),
        )
        self.adapter = SimpleNamespace(
            video_spec=VideoSpec(),
            embed=lambda ids: self.weights[ids],
            device=torch.device("cpu"),
            world=self.world,
        )

    def open(self, path: Path, options: ClipOptions) -> StubSession:
        span = [value for value in (options.start, options.end) if value is not None]
        self.log.append(("open", path.name, *span))
        if not path.is_file():
            raise MediaError("There is no such file.", path=path)
        identity = f"{path.read_bytes()!r}{options.start}{options.end}"
        return StubSession(self, path, SimpleNamespace(identity=identity))

    def lacks(self, method: Any) -> None:
        return None

    def count(self, what: str) -> int:
        return sum(entry[0] == what for entry in self.log)
