"""Help pages as plain text: options under short headings, examples kept as typed.

`--help` is the page that people need, `--help-all` has everything. Typer's own pages need rich,
which costs more time than the page itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from omnidrop_cli.options.short import SHORT
from omnidrop_cli.shorthand import with_command

HELP_ALL = "--help-all"


class PlainCommand(TyperCommand):
    """A command whose help lists options under the heading each was given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was typed; the config file gives defaults, but never to a help page."""
        from omnidrop_cli import config

        _note_help_all(ctx, args)
        typed = args[: args.index("--")] if "--" in args else args
        wanted = not ctx.resilient_parsing and not set(ctx.help_option_names) & set(typed)
        if wanted and ctx.parent is not None and self.name not in config.LENIENT:
            with suppress(typer.BadParameter.__mro__[1]):  # a mistake; parsing below says it
                options = self.make_parser(ctx).parse_args(args=list(args))[0]
                given = config.given_keys(self, options)
                ctx.default_map = config.file_values(self, ctx.parent.command.commands, given)
        with config.named_sources(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        from omnidrop_cli import config

        if ctx.obj is not None and ctx.obj.admit is not None:
            ctx.obj.admit(str(self.name), dict(ctx.params))
        with config.named_sources(ctx):
            return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_metavar(p) for p in self.get_params(ctx) if _is_argument(p))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the short page, or the whole one where there is no short one or it is asked for."""
        short = SHORT.get(str(self.name))
        if short is None or ctx.meta.get(HELP_ALL):
            super().format_help(ctx, formatter)
            return
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(_up_to_examples(self.help or ""))
        records = dict(self._short_records(ctx, short))
        with formatter.section(
            "Options" if all(n[0] == "-" for n in short) else "Arguments, options"
        ):
            formatter.write_dl(list(records.items()))
        count = sum(not _is_argument(p) for p in self.params)
        formatter.write_paragraph()
        formatter.write_text(f"All {count} options, and more: {ctx.command_path} {HELP_ALL}")

    def _short_records(self, ctx: Any, short: dict[str, str]) -> Iterator[tuple[str, str]]:
        for name, text in short.items():
            for parameter in self.params:
                if _is_argument(parameter) and _metavar(parameter) == name:
                    yield name, text
                elif name in parameter.opts:
                    record = parameter.get_help_record(ctx)
                    assert record is not None
                    yield record[0], text

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            heading = getattr(parameter, "rich_help_panel", None) or "Other options"
            if _is_argument(parameter):
                heading = "Arguments"
                record = (_metavar(parameter), getattr(parameter, "help", None) or "")
            elif HELP_ALL in parameter.opts:
                sections.setdefault(heading, []).extend(_help_records(str(self.name) in SHORT))
                continue
            sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _flush_left(self.epilog, formatter)


class PlainGroup(TyperGroup):
    """The group of commands, in the order they were added, each with its whole first sentence.

    A question needs no command: `omnidrop clip.mp4 "What happens?"` runs `ask`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _note_help_all(ctx, args)
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        asking = {name for parameter in self.commands["ask"].params for name in parameter.opts}
        return super().parse_args(ctx, with_command(args, set(self.commands), own, asking))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return commands, and clips: a question needs no command."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete[:1] not in ("", "-"):
            words = next(filter(_is_argument, self.commands["ask"].params))
            found += words.shell_complete(ctx, incomplete)
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_help(self, ctx: Any) -> str:
        """Return the page, with those of all commands if everything is asked for."""
        pages = [super().get_help(ctx)]
        if ctx.meta.get(HELP_ALL):
            for name, command in self.commands.items():
                with ctx.command.context_class(command, info_name=name, parent=ctx) as inner:
                    pages.append(command.get_help(inner))
        return "\n\n\n".join(pages)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = []
        for parameter in self.get_params(ctx):
            if HELP_ALL in parameter.opts:
                records += _help_records(True)
            elif (record := parameter.get_help_record(ctx)) is not None:
                records.append(record)
        with formatter.section("Options"):
            formatter.write_dl(records)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, c.get_short_help_str(limit=200)) for name, c in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _flush_left(self.epilog, formatter)


def _note_help_all(ctx: Any, args: list[str]) -> None:
    typed = args[: args.index("--")] if "--" in args else args
    if HELP_ALL in typed:
        ctx.meta[HELP_ALL] = True


def _help_records(has_more: bool) -> list[tuple[str, str]]:
    records = [("-h, --help", "Show the page that people need." if has_more else "Show this page.")]
    return [*records, (HELP_ALL, "Show everything.")] if has_more else records


def _up_to_examples(text: str) -> str:
    """Return the paragraphs of a help text up to its examples."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    last = next((i for i, p in enumerate(paragraphs) if p.startswith("\b\nExample")), 0)
    return "\n\n".join([paragraphs[0], *paragraphs[last : last + 1]] if last else paragraphs[:1])


def _is_argument(parameter: Any) -> bool:
    return getattr(parameter, "param_type_name", "") == "argument"


def _metavar(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


def _flush_left(epilog: str | None, formatter: Any) -> None:
    if epilog:
        formatter.write_paragraph()
        formatter.write_text(epilog.strip())
