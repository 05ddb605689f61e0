"""`--cut FILE`: the moments that an answer came from, as a clip of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import MediaError, printable
from omnidrop.format import span
from omnidrop_cli.errors import complain

if TYPE_CHECKING:
    from omnidrop import Answer
    from omnidrop_cli.commands.answering import Question
    from omnidrop_cli.options.common import OutputFlags, ReadFlags

#: Seconds before and after each moment.
MARGIN = 0.5


def cut(
    answer: Answer, question: Question, read: ReadFlags, target: Path, output: OutputFlags
) -> None:
    """Write the moments of an answer; after a proof, the one that it hangs on.

    Raises
    ------
    MediaError
        If no moment is known; nothing is written then.
    """
    import omnidrop
    from omnidrop.clip.cut import write_cut

    hangs_on = answer.hangs_on
    moments = (hangs_on.moment,) if hangs_on is not None else answer.trace.moments
    if not moments:
        raise MediaError(
            "It is not known where in the clip the answer came from, so nothing was cut.",
            path=question.clip,
            hint="Add --evidence, which finds out by leaving parts out; or calibrate the model: "
            "omnidrop calibrate SET --evidence.",
        )
    with omnidrop.open_clip(question.clip, read.clip_options(question.span)) as clip:
        spans = [(moment.start, moment.end) for moment in moments]
        written = write_cut(clip, spans, target, margin=MARGIN, force=output.force)
    if not output.quiet:
        parts = ", ".join(span(start, end) for start, end in written)
        complain(f"wrote {printable(target)}: {parts}", "cut")
