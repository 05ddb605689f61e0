"""Where the answer came from: proof by leaving out, and the moments as a clip of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from omnidrop.errors import UsageError
from omnidrop.files import check_target
from omnidrop_cli.options.groups import option

if TYPE_CHECKING:
    from omnidrop_cli.commands.answering import Question
    from omnidrop_cli.options.common import ReadFlags


@dataclass(frozen=True)
class EvidenceFlags:
    """Where the answer came from."""

    evidence: Annotated[
        bool,
        option(
            "--evidence",
            panel="Answer",
            help="Leave the moments that the answer came from out, one by one, and say which one "
            "it hangs on. Each takes about as long as a question.",
        ),
    ] = False
    cut: Annotated[
        Path | None,
        option(
            "--cut",
            panel="Output",
            metavar="FILE",
            help="Write the moments that the answer came from as a clip: FILE.mp4, .mkv or .mov.",
        ),
    ] = None

    def check(self, questions: Sequence[Question], read: ReadFlags, force: bool) -> None:
        """Raise UsageError if a cut cannot be written: several questions, or no such target.

        Parameters
        ----------
        questions : sequence of Question
        read : ReadFlags
        force : bool
            Whether an existing file may be replaced.
        """
        if self.cut is None:
            return
        if len(questions) != 1:
            raise UsageError(
                "--cut writes the moments of one answer.", hint="Ask one question about one clip."
            )
        if read.audio_file is not None:
            raise UsageError(
                "--cut takes picture and sound from the clip.", hint="Drop --audio or --cut."
            )
        from omnidrop.clip.cut import SUFFIXES

        if self.cut.suffix.lower() not in SUFFIXES:
            raise UsageError(
                "A cut is written as video.",
                path=self.cut,
                hint=f"End it in {', '.join(SUFFIXES)}.",
            )
        check_target(self.cut, force)
        clip = questions[0].clip
        if self.cut.exists() and clip.exists() and self.cut.samefile(clip):
            raise UsageError("This is the clip itself.", path=self.cut, hint="Name another file.")
