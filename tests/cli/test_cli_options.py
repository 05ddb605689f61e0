"""Every option of every command: its environment variable, its help, and the library's defaults."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError
from omnidrop.evaluation.calibrate.search import Search
from omnidrop.evaluation.runner import RunOptions
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.profiling.measure import profile
from omnidrop.recommended import SAFE
from omnidrop.training.a2v import TrainOptions
from omnidrop.training.selector import SelectorOptions
from omnidrop_cli import app as application
from omnidrop_cli.options.calibrate import TryFlags
from omnidrop_cli.options.common import AnswerFlags, ModelFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.eval import EntrantFlags, SetFlags
from omnidrop_cli.options.groups import build, variable
from omnidrop_cli.options.profile import CompareFlags, FileFlags, RoundFlags
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.options.training import SelectorFlags, TrainFlags

GROUP: Any = typer.main.get_command(application.app)
OPTIONS = [
    (command, parameter)
    for command in GROUP.commands.values()
    for parameter in command.params
    if parameter.param_type_name == "option"
]


@pytest.mark.parametrize(
    ("command", "parameter"), OPTIONS, ids=[f"{c.name}-{max(p.opts, key=len)}" for c, p in OPTIONS]
)
def test_every_option_has_an_environment_variable(command, parameter) -> None:
    named = variable(*parameter.opts)
    if parameter.multiple:  # read by `grouped`, one value per line
        assert parameter.envvar is None
    else:
        assert parameter.envvar == named


def test_every_option_is_explained() -> None:
    assert len(OPTIONS) > 150
    for command, parameter in OPTIONS:
        assert parameter.help, (command.name, parameter.opts)


REPEATABLE = [(c, p) for c, p in OPTIONS if p.multiple]


def test_repeatable_options_take_one_value_per_line(monkeypatch) -> None:
    """As typer would call the command: nothing typed, all from the environment."""
    taken: dict[tuple[str, str], Any] = {}
    found = {(c.name, max(p.opts, key=len)) for c, p in REPEATABLE}
    assert {("eval", "--set"), ("eval", "--preset"), ("profile", "--preset"), ("profile", "--save"),
            ("ask", "--question"), ("ask", "--set"), ("calibrate", "--try")} <= found  # fmt: skip

    from omnidrop_cli.options import groups

    for kind, field, text in (
        (EntrantFlags, "settings", "omnidrop.diversity=0"),
        (EntrantFlags, "presets", "mine.json"),
        (EntrantFlags, "variants", "a=random:budget=.1"),
        (CompareFlags, "presets", "paper-7b-30"),
        (CompareFlags, "settings", "diversity=0"),
        (DropFlags, "settings", "diversity=0"),
        (TryFlags, "values", "beta=1,2"),
        (FileFlags, "save", "report.html"),
    ):
        name = variable(groups.option_names(kind)[field])
        monkeypatch.setenv(name, f"{text}\n\n{text}\n")

        def function(*, flags: Any) -> Any:
            return flags

        function.__annotations__["flags"] = kind
        command = groups.grouped(function)
        given = {p.name: p.default for p in _parameters(command)}
        flags = command(**given)
        assert [str(value) for value in getattr(flags, field)] == [text, text]
        typed = command(**(given | {field: ["x=y.json"]}))
        assert getattr(typed, field) == ["x=y.json"]  # what is typed goes first
        monkeypatch.delenv(name)
        taken[kind.__name__, field] = text
    assert len(taken) == 8


def _parameters(command: Any) -> Any:
    import inspect

    return inspect.signature(command).parameters.values()


def test_defaults_are_the_librarys() -> None:
    assert ModelFlags().load_options() == LoadOptions()
    assert ReadFlags().clip_options(SpanFlags()) == ClipOptions()
    assert AnswerFlags().generate() == GenerateOptions()
    assert SetFlags().run_options(ClipOptions()) == RunOptions()
    assert TryFlags().search((0.3,), 0) == Search()
    assert TrainFlags().train_options() == TrainOptions()
    assert SelectorFlags().selector_options() == SelectorOptions()
    assert TryFlags().for_model(SAFE) == ("dash", (0.5,))
    assert TryFlags(method="seats").for_model(SAFE) == ("seats", (0.3,))
    assert TryFlags(budgets=(0.2, 0.1)).for_model(SAFE) == ("dash", (0.2, 0.1))
    usual = profile.__kwdefaults__
    rounds = RoundFlags()
    assert (rounds.repeats, rounds.warmup) == (usual["repeats"], usual["warmup"])


def test_what_the_library_refuses_is_said_with_the_names_of_options() -> None:
    with pytest.raises(UsageError, match="--max-frames must be at least 1, not 0"):
        build(ClipOptions, ReadFlags, max_frames=0)
    with pytest.raises(UsageError, match=r"--end \(1 s\) must come after --start \(2 s\)"):
        SpanFlags(start=2.0, end=1.0)
    with pytest.raises(UsageError, match="Holding out 2 of the clips"):
        TryFlags(held_out=2.0).search((0.3,), 0)
    with pytest.raises(UsageError, match="Unknown --attn 'fast'"):
        ModelFlags(attention="fast")
    with pytest.raises(UsageError, match="--steps must be 1 or more"):
        TrainFlags(steps=0).train_options()
