"""What a saved page holds besides the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from omnidrop.errors import UsageError
from omnidrop_cli.options.groups import option


@dataclass(frozen=True)
class PageFlags:
    """Whether clips are put into the page."""

    embed: Annotated[
        bool,
        option(
            "--embed",
            panel="Output",
            help="Put the clip itself into the page that --save FILE.html writes, up to 25 MB; "
            "without it the page plays the clip from its own place.",
        ),
    ] = False

    def check(self, targets: Iterable[Path], clips: Sequence[Path]) -> None:
        """Raise UsageError if clips are to be put into a page that is not written or too large.

        Parameters
        ----------
        targets : iterable of Path
            The files that answers are saved to.
        clips : sequence of Path
        """
        if not self.embed:
            return
        if not any(target.suffix.lower() == ".html" for target in targets):
            raise UsageError(
                "--embed puts the clip into a page, and no page is saved.",
                hint="Add --save report.html.",
            )
        from omnidrop_cli.page.film import check_size

        check_size(clips)
