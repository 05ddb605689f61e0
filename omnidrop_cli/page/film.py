"""The clip of an answer on a page: a player where browsers play it, and small pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from omnidrop import format as fmt
from omnidrop.errors import MediaError, UsageError, printable
from omnidrop_cli.page.html import Markup, join, tag

if TYPE_CHECKING:
    from omnidrop.clip.probe import MediaInfo
    from omnidrop.clip.stills import Still
    from omnidrop.report.trace import Answer, Moment, Trace

Notify = Callable[[str], None]

#: Bytes of clips that `--embed` puts into one page.
MOST_EMBEDDED = 25_000_000
#: Moments that get pictures.
MOST_MOMENTS = 6
#: Pictures of a whole clip that is not played.
OVERVIEW = 8
#: Longest side of the picture that a player shows before it plays, in pixels.
POSTER = 480


@dataclass(frozen=True)
class Film:
    """What a page has of one clip.

    Attributes
    ----------
    key : str
        Id of its player.
    name : str
        Of the file.
    source : str
        Address that a player loads; empty if browsers do not play it.
    kind : {"video", "audio", ""}
    embedded : bool
        Whether `source` is the media itself.
    poster : Still or None
    pictures : dict of Still by time
    notice : str
        Why there is no player or there are no pictures.
    """

    key: str
    name: str
    source: str = ""
    kind: str = ""
    embedded: bool = False
    poster: Still | None = None
    pictures: dict[float, Still] = field(default_factory=dict)
    notice: str = ""


def _silent(notice: str) -> None:
    pass


def check_size(clips: Sequence[Path]) -> None:
    """Raise UsageError if clips are together too large for a page."""
    total = sum(clip.stat().st_size for clip in dict.fromkeys(clips) if clip.is_file())
    if total > MOST_EMBEDDED:
        raise UsageError(
            f"{'The clip has' if len(clips) == 1 else 'The clips have'} {fmt.size(total)}, and "
            f"--embed puts at most {fmt.size(MOST_EMBEDDED)} into a page.",
            hint="Leave out --embed: the page then links to the clip. Or cut the clip.",
        )


def address(clip: Path, page: Path) -> str:
    """Return the address of a clip as a page's link: relative, each byte of its name encoded.

    A `file:` address where there is no relative one, as between drives.
    """
    clip, folder = Path(os.path.abspath(clip)), Path(os.path.abspath(page.parent))
    try:
        relative = Path(os.path.relpath(clip, folder))
    except ValueError:
        return clip.as_uri()
    return quote(os.fsencode(relative.as_posix()), safe="/")


def moment_times(moment: Moment) -> tuple[float, ...]:
    """Return up to three times within a moment, for pictures."""
    seconds = moment.end - moment.start
    count = 1 if seconds < 1 else 2 if seconds < 2 else 3
    return tuple(moment.start + (i + 0.5) * seconds / count for i in range(count))


def overview_times(trace: Trace) -> tuple[float, ...]:
    """Return times spread evenly over the part of the clip that was used."""
    if not trace.chunks:
        return ()
    start, end = trace.chunks[0].start, trace.chunks[-1].end
    return tuple(start + (i + 0.5) * (end - start) / OVERVIEW for i in range(OVERVIEW))


def film(
    key: str, answers: Sequence[Answer], page: Path, *, embed: bool, notify: Notify = _silent
) -> Film:
    """Read what a page shows of one clip.

    Parameters
    ----------
    key : str
        Id of its player.
    answers : sequence of Answer
        About this clip, at least one.
    page : Path
        Where the page will be.
    embed : bool
        Put the clip itself into the page.
    notify : callable
        Receives what the user should know: a clip that could not be put into the page.
    """
    from omnidrop.clip.playback import media_type
    from omnidrop.clip.probe import probe

    first = answers[0].trace
    path = first.clip.get("path")
    if not path:
        return Film(key, "ready features", notice="The features were given, so no clip is shown.")
    clip = Path(path)
    made = Film(key, clip.name)
    try:
        info = probe(clip, first.clip.get("sampling", {}).get("video_track"))
        media = media_type(info)
        if media is None:
            kind = info.video.codec if info.video else info.audio[0].codec
            what = f"{kind} in {info.format.split(',')[0]}"
            made = replace(made, notice=f"Browsers do not play this clip ({what}).")
            if embed:
                notify(f"{printable(clip)}: {made.notice} The page has pictures of it instead.")
        else:
            made = replace(made, kind=media.split("/")[0], source=address(clip, page))
            if embed:
                data = base64.b64encode(clip.read_bytes()).decode()
                made = replace(made, source=f"data:{media};base64,{data}", embedded=True)
        return _with_pictures(made, info, answers)
    except (MediaError, OSError) as problem:
        why = problem.what if isinstance(problem, MediaError) else problem.strerror
        notice = f"The clip could not be read for this page: {why}"
        notify(f"{printable(clip)}: {notice}")
        return replace(made, notice=notice)


def _with_pictures(made: Film, info: MediaInfo, answers: Sequence[Answer]) -> Film:
    from omnidrop.clip.stills import stills

    times: list[float] = []
    for answer in answers:
        trace = answer.trace
        if not trace.video_tokens:
            continue  # pictures that the model did not see would mislead
        for moment in trace.moments[:MOST_MOMENTS]:
            times += moment_times(moment)
        if not made.source:
            times += overview_times(trace)
    pictures = {still.time: still for still in stills(info, times)}
    poster = None
    if made.kind == "video":
        trace = answers[0].trace
        middle = overview_times(trace)[OVERVIEW // 2 : OVERVIEW // 2 + 1]
        at = moment_times(trace.moments[0])[:1] if trace.moments else middle
        poster = next(iter(stills(info, at, side=POSTER)), None)
    return replace(made, pictures=pictures, poster=poster)


def data_address(still: Still) -> str:
    """Return a picture as the address of an image."""
    return f"data:image/jpeg;base64,{base64.b64encode(still.jpeg).decode()}"


def player(made: Film) -> Markup:
    """Return the player of a clip, or the reason why there is none."""
    said = tag("p", made.notice, class_="muted") if made.notice else Markup("")
    if not made.source:
        return said
    given: dict[str, object] = {"id": made.key, "controls": True, "preload": "metadata"}
    given |= {"src": made.source, "aria_label": f"The clip {made.name}"}
    if made.poster is not None:
        given |= {"poster": data_address(made.poster)}
        given |= {"width": made.poster.width, "height": made.poster.height}
    inside = tag("p", "This browser plays no media.")
    parts = [tag(made.kind, inside, **given)]
    if not made.embedded:
        link = tag("a", made.name, href=made.source)
        note = "The page plays the clip from its own place: "
        parts.append(tag("p", note, link, class_="muted small"))
    return join([*parts, said])


def time_link(made: Film, start: float, end: float) -> Markup:
    """Return a span of time, as a link that plays it where there is a player."""
    text = fmt.span(start, end)
    if not made.source:
        return tag("span", text, class_="time")
    target = f"#{made.key}" if made.embedded else f"{made.source}#t={start:.2f},{end:.2f}"
    return tag(
        "a",
        text,
        class_="time play",
        href=target,
        data_player=made.key,
        data_at=f"{start:.2f}",
        data_until=f"{end:.2f}",
        aria_label=f"Play {text}",
    )


def strip(made: Film, times: Sequence[float], *, told: bool = False) -> Markup | None:
    """Return the pictures at these times, those that the clip has; None if it has none.

    With `told`, each has its time below it.
    """
    found = [made.pictures[t] for t in sorted(set(times)) if t in made.pictures]
    if not found:
        return None
    return tag("div", *(_picture(still, told) for still in found), class_="strip")


def _picture(still: Still, told: bool) -> Markup:
    at = fmt.clock(still.time, None)
    size = {"width": still.width, "height": still.height}
    image = tag("img", src=data_address(still), **size, alt=f"Frame at {at}")
    return tag("div", image, tag("span", at, class_="muted small") if told else None)


__all__ = ["MOST_EMBEDDED", "Film", "address", "check_size", "film", "player", "strip", "time_link"]
