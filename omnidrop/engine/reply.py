"""What becomes of a prefilled prompt: an answer token by token, or one of given choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from omnidrop.engine.captured import Steps
from omnidrop.engine.decode import Generated, Token, generate, score_choices
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.timing import Meter
from omnidrop.models.adapter import Adapter
from omnidrop.options import GenerateOptions
from omnidrop.report.trace import Choice
from omnidrop.stages import StageName


class Reply(NamedTuple):
    """What was generated or chosen; `ticks` are seconds from the start to each token."""

    made: Generated
    choices: tuple[Choice, ...]
    ticks: tuple[float, ...]


def choose_answer(
    adapter: Adapter,
    prefilled: Prefilled,
    choices: Sequence[str],
    on_text: Callable[[str], None] | None,
    meter: Meter,
) -> Reply:
    """Score the choices and take the most probable one."""
    with meter.stage(StageName.CHOICES):
        scored = score_choices(adapter, prefilled, choices)
    tick = meter.since_start()
    made = Generated((), scored[0].text, "choice", ())
    if on_text:
        on_text(made.text)
    return Reply(made, scored, (tick,))


def generate_answer(
    adapter: Adapter,
    prefilled: Prefilled,
    options: GenerateOptions,
    on_text: Callable[[str], None] | None,
    meter: Meter,
    steps: Steps,
    tell: Callable[[Token], None] | None,
) -> Reply:
    """Generate an answer; `tell` receives each token before its text."""
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(meter.since_start())

    with meter.stage(StageName.ANSWER):
        made = generate(adapter, prefilled, options, on_text, tick, meter, steps, tell)
    return Reply(made, (), tuple(ticks))


def told(
    alive: Callable[[], None] | None, on_token: Callable[[Token], None] | None
) -> Callable[[Token], None] | None:
    """Return one function that calls those of both that are there."""
    if alive is None:
        return on_token

    def tell(token: Token) -> None:
        alive()
        if on_token is not None:
            on_token(token)

    return tell
