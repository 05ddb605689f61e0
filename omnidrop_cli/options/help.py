"""Help pages as plain text: options under short headings, examples kept as typed.

Typer's own pages need rich, which costs more time than the page itself.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose help lists options under the heading each was given."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_metavar(p) for p in self.get_params(ctx) if _is_argument(p))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if _is_argument(parameter):
                heading = "Arguments"
                record = (_metavar(parameter), getattr(parameter, "help", None) or "")
            else:
                heading = getattr(parameter, "rich_help_panel", None) or "Other options"
            sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _flush_left(self.epilog, formatter)


class PlainGroup(TyperGroup):
    """The group of commands, in the order they were added, each with its whole first sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, c.get_short_help_str(limit=200)) for name, c in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _flush_left(self.epilog, formatter)


def _is_argument(parameter: Any) -> bool:
    return getattr(parameter, "param_type_name", "") == "argument"


def _metavar(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


def _flush_left(epilog: str | None, formatter: Any) -> None:
    if epilog:
        formatter.write_paragraph()
        formatter.write_text(epilog.strip())
