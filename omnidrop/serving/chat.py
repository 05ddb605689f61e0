"""A chat-completions request, read and checked. Nothing is opened here and no model is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError
from omnidrop.options import GenerateOptions
from omnidrop.serving.fields import Fields
from omnidrop.serving.problems import refusal, wrong

#: Most messages of a request.
MESSAGES = 512

#: Most texts of `stop`, as in OpenAI's API.
STOPS = 4

#: Fields of OpenAI's API that say who asks or how it is filed, and change no answer.
_ABOUT_THE_CLIENT = ("user", "metadata", "safety_identifier", "prompt_cache_key")

#: Fields that ask for what there is not: the rest of the sentence, and the values that ask nothing.
_NOT_THERE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "n": ("must be 1: one answer is generated.", (1,)),
    "frequency_penalty": ("is not supported; leave it out.", (0,)),
    "presence_penalty": ("is not supported; leave it out.", (0,)),
    "logit_bias": ("is not supported; leave it out.", ()),
    "tools": ("is not supported: this server calls no tools.", ()),
    "tool_choice": ("is not supported: this server calls no tools.", ("none", "auto")),
    "parallel_tool_calls": ("is not supported: this server calls no tools.", (True, False)),
    "functions": ("is not supported: this server calls no functions.", ()),
    "function_call": ("is not supported: this server calls no functions.", ("none", "auto")),
    "audio": ("is not supported: answers are text.", ()),
    "modalities": ("must be ['text']: answers are text.", (["text"],)),
    "prediction": ("is not supported; leave it out.", ()),
    "reasoning_effort": ("is not supported; leave it out.", ()),
    "verbosity": ("is not supported; leave it out.", ("medium",)),
    "service_tier": ("is not supported; leave it out.", ("auto", "default")),
    "store": ("must be false: nothing is stored.", (False,)),
    "web_search_options": ("is not supported: nothing is fetched from a network.", ()),
}

_KNOWN = (
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("stop", "stream", "stream_options", "logprobs", "top_logprobs", "response_format"),
    "omnidrop",
)


@dataclass(frozen=True)
class Sound:
    """Audio that stands in the request: base64 text, and the format it is said to have."""

    data: str = field(repr=False)
    format: str


@dataclass(frozen=True)
class Wanted:
    """What a request's `omnidrop` field asks for.

    Attributes
    ----------
    budget : float, "auto" or None
        Share of audio and video tokens kept; None leaves it to the model.
    method, preset : str or None
    settings : dict
        Fields of the method.
    clip : ClipOptions
        Span and sampling.
    choices : tuple of str
        The answer is the most probable of them.
    evidence, check, anyway : bool
        As `Session.ask` takes them.
    report : bool
        Whether the whole answer document is sent.
    progress : bool
        Whether a stream tells what is being done before the first token.
    """

    budget: float | str | None = None
    method: str | None = None
    preset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    clip: ClipOptions = field(default_factory=ClipOptions)
    choices: tuple[str, ...] = ()
    evidence: bool = False
    check: bool = False
    anyway: bool = False
    report: bool = False
    progress: bool = False


@dataclass(frozen=True)
class ChatRequest:
    """One request.

    Attributes
    ----------
    model : str or None
        As named by the client.
    question : str
        Text of the last message.
    turns : tuple of (str, str)
        Earlier questions and answers, the oldest first.
    system : str or None
    video : str or None
        URL of the clip.
    sound : Sound or None
        Audio beside the clip or in place of one.
    options : GenerateOptions
    stream, usage : bool
        Whether the answer is streamed, and whether the stream ends with the usage.
    wanted : Wanted
    """

    model: str | None
    question: str
    turns: tuple[tuple[str, str], ...]
    system: str | None
    video: str | None
    sound: Sound | None
    options: GenerateOptions
    stream: bool
    usage: bool
    wanted: Wanted


def read_request(document: Any) -> ChatRequest:
    """Read a request; what is not supported is refused by name.

    Parameters
    ----------
    document : object
        The request's JSON.

    Raises
    ------
    Refused
        Status 400, with the field that is wrong.
    """
    fields = Fields(document)
    for name in _ABOUT_THE_CLIENT:
        fields.take(name)
    for name, (why, unless) in _NOT_THERE.items():
        fields.refuse(name, why, unless=unless)
    _plain_text(fields)
    talk = _read_messages(fields.take("messages"))
    model = fields.text("model")
    stream = fields.flag("stream")
    usage = _stream_options(fields, stream)
    found = fields.take("omnidrop")
    wanted = Wanted() if found is None else read_wanted(Fields(found, "omnidrop"), stream=stream)
    options = _read_options(fields, wanted)
    fields.end(_KNOWN)
    if talk.video is None and talk.sound is None:
        _refuse_without_clip(wanted)
    return ChatRequest(
        model=model,
        question=talk.question,
        turns=talk.turns,
        system=talk.system,
        video=talk.video,
        sound=talk.sound,
        options=options,
        stream=stream,
        usage=usage,
        wanted=wanted,
    )


def _plain_text(fields: Fields) -> None:
    found = fields.take("response_format")
    if found is None or found == {"type": "text"}:
        return
    raise wrong(
        "response_format is not supported: answers are plain text. For one of given answers use "
        "`omnidrop.choices`.",
        "response_format",
        "unsupported_parameter",
    )


def _stream_options(fields: Fields, stream: bool) -> bool:
    found = fields.take("stream_options")
    if found is None:
        return False
    if not stream:
        raise wrong("stream_options goes with `stream: true`.", "stream_options")
    inner = Fields(found, "stream_options")
    usage = inner.flag("include_usage")
    inner.refuse("include_obfuscation", "is not supported; leave it out.", unless=(False,))
    inner.end()
    return usage


def _read_options(fields: Fields, wanted: Wanted) -> GenerateOptions:
    most = {fields.whole("max_tokens"), fields.whole("max_completion_tokens")} - {None}
    if len(most) > 1:
        raise wrong("max_tokens and max_completion_tokens differ.", "max_completion_tokens")
    values = {
        "max_new_tokens": next(iter(most), None),
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "seed": fields.whole("seed"),
    }
    stop = fields.texts("stop")
    if len(stop) > STOPS:
        raise wrong(f"stop takes up to {STOPS} texts.", "stop")
    logprobs, top = fields.flag("logprobs"), fields.whole("top_logprobs")
    if top is not None and not logprobs:
        raise wrong("top_logprobs goes with `logprobs: true`.", "top_logprobs")
    if wanted.choices:
        of_generating = {
            "logprobs": logprobs,
            "stop": bool(stop),
            "temperature": bool(values["temperature"]),
        }
        for name, is_asked in of_generating.items():
            if is_asked:
                raise wrong(
                    f"{name} does not go with `omnidrop.choices`: of those nothing is generated, "
                    "and their probabilities are in the reply.",
                    name,
                )
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    try:
        return GenerateOptions(**given, logprobs=logprobs, top_logprobs=top or 0, stop=stop)
    except UsageError as problem:
        name = problem.what.partition(" ")[0]
        said = {"max_new_tokens": "max_tokens"}.get(name, name)
        text = refusal(problem).message.replace("max_new_tokens", "max_tokens")
        raise wrong(text, said, "invalid_value") from None


def read_wanted(fields: Fields, *, stream: bool) -> Wanted:
    """Read what a request's `omnidrop` field asks for.

    Parameters
    ----------
    fields : Fields
    stream : bool
        Whether the answer is streamed.

    Raises
    ------
    Refused
    """
    named = fields.named
    budget: float | str | None
    raw = fields.take("budget")
    if raw == "auto" or raw is None:
        budget = raw
    else:
        budget = Fields({"budget": raw}, fields.where).number("budget")
        if budget is None or not 0 < budget <= 1:
            raise wrong(f"{named('budget')} must be above 0 and up to 1.", named("budget"))
    settings = fields.take("settings")
    if settings is not None and not isinstance(settings, dict):
        raise wrong(f"{named('settings')} must be an object.", named("settings"), "invalid_type")
    numbers = {name: fields.number(name) for name in ("start", "end", "fps")}
    counts = {name: fields.whole(name) for name in ("max_frames", "max_pixels", "still")}
    given: dict[str, Any] = {
        name: value for name, value in {**numbers, **counts}.items() if value is not None
    }
    try:
        options = ClipOptions(
            **given, audio=fields.flag("audio", True), video=fields.flag("video", True)
        )
    except UsageError as problem:
        name = named(problem.what.partition(" ")[0])
        raise wrong(refusal(problem).message, name, "invalid_value") from None
    wanted = Wanted(
        budget=budget,
        method=fields.text("method"),
        preset=fields.text("preset"),
        settings=dict(settings or {}),
        clip=options,
        choices=fields.texts("choices"),
        **{name: fields.flag(name) for name in ("evidence", "check", "anyway", "report")},
        progress=fields.flag("progress"),
    )
    fields.end(list(Wanted.__dataclass_fields__) + list(ClipOptions.__dataclass_fields__))
    if wanted.preset is not None and (wanted.method is not None or budget is not None):
        raise wrong(f"{named('preset')} sets method and budget; leave those out.", named("preset"))
    if wanted.progress and not stream:
        raise wrong(f"{named('progress')} goes with `stream: true`.", named("progress"))
    return wanted


def _refuse_without_clip(wanted: Wanted) -> None:
    """Refuse what makes sense only of a clip."""
    plain = Wanted(
        choices=wanted.choices,
        anyway=wanted.anyway,
        report=wanted.report,
        progress=wanted.progress,
    )
    for name in Wanted.__dataclass_fields__:
        if getattr(wanted, name) != getattr(plain, name):
            raise wrong(
                f"omnidrop.{name} needs a clip; the request has none (a `video_url` or "
                "`input_audio` part in the first user message).",
                f"omnidrop.{name}",
            )


@dataclass
class _Talk:
    """What the messages say."""

    question: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    video: str | None = None
    sound: Sound | None = None


@dataclass(frozen=True)
class _Said:
    """One message of the user."""

    text: str
    video: str | None
    sound: Sound | None


def _read_messages(found: Any) -> _Talk:
    if not isinstance(found, list) or not found:
        raise wrong("messages must be a list with at least one message.", "messages")
    if len(found) > MESSAGES:
        raise wrong(f"messages has more than {MESSAGES} messages.", "messages")
    systems: list[str] = []
    asked: list[_Said] = []
    answered: list[str] = []
    for index, one in enumerate(found):
        where = f"messages[{index}]"
        fields = Fields(one, where)
        role = fields.needed("role")
        fields.take("name")
        if role in ("system", "developer"):
            if asked:
                raise wrong(f"{where}: a system message stands before all others.", where)
            systems.append(_only_text(fields, where))
        elif role == "user":
            if len(asked) > len(answered):
                raise wrong(
                    f"{where}: user and assistant take turns; join the texts of two user messages "
                    "that follow each other.",
                    where,
                )
            asked.append(_read_user(fields.take("content"), f"{where}.content"))
        elif role == "assistant":
            if len(asked) == len(answered):
                raise wrong(f"{where}: an assistant's message follows a user's.", where)
            answered.append(_read_assistant(fields, where))
        else:
            raise wrong(
                f"{where}.role {role!r} is not supported; use system, user or assistant.",
                f"{where}.role",
            )
        fields.end(("role", "content", "name"))
    if len(asked) == len(answered):
        raise wrong("The last message must be the user's question.", "messages")
    first, *later = asked
    for message in later:
        same = message.video in (None, first.video) and message.sound in (None, first.sound)
        if not same:
            raise wrong(
                "A conversation is about one clip, which stands in its first user message; ask "
                "about another clip in a request of its own.",
                "messages",
            )
    return _Talk(
        question=asked[-1].text,
        turns=tuple(
            (message.text, text) for message, text in zip(asked[:-1], answered, strict=True)
        ),
        system="\n\n".join(systems) if systems else None,
        video=first.video,
        sound=first.sound,
    )


def _read_user(content: Any, where: str) -> _Said:
    texts: list[str] = []
    video: str | None = None
    sound: Sound | None = None
    for at, fields in _parts(content, where):
        kind = fields.needed("type")
        if kind == "text":
            texts.append(fields.needed("text"))
        elif kind == "video_url":
            if video is not None:
                raise wrong(f"{at}: one clip a request.", at)
            inner = fields.take("video_url")
            if isinstance(inner, str):
                inner = {"url": inner}
            link = Fields(inner, f"{at}.video_url")
            video = link.needed("url")
            link.end(("url",))
        elif kind == "input_audio":
            if sound is not None:
                raise wrong(f"{at}: one `input_audio` a request.", at)
            inner = Fields(fields.take("input_audio"), f"{at}.input_audio")
            sound = Sound(inner.needed("data"), inner.needed("format"))
            inner.end(("data", "format"))
        elif kind == "image_url":
            raise wrong(
                f"{at}: still images are not supported; this server answers about video and audio.",
                at,
                "unsupported_content",
            )
        else:
            raise wrong(
                f"{at}: parts of type {kind!r} are not supported; use text, video_url or "
                "input_audio.",
                at,
                "unsupported_content",
            )
        fields.end(("type", kind))
    text = "\n".join(texts)
    if not text.strip():
        raise wrong(f"{where} has no text: ask something.", where)
    return _Said(text, video, sound)


def _read_assistant(fields: Fields, where: str) -> str:
    fields.refuse("tool_calls", "is not supported: this server calls no tools.")
    fields.refuse("function_call", "is not supported: this server calls no functions.")
    for name in ("refusal", "audio", "annotations", "reasoning_content", "omnidrop"):
        fields.take(name)
    return _only_text(fields, where)


def _only_text(fields: Fields, where: str) -> str:
    """Return the content of a message that may hold text alone."""
    at = f"{where}.content"
    texts: list[str] = []
    for place, part in _parts(fields.take("content"), at):
        if part.needed("type") != "text":
            raise wrong(f"{place}: this message may hold text alone.", place)
        texts.append(part.needed("text"))
        part.end(("type", "text"))
    return "\n".join(texts)


def _parts(content: Any, where: str) -> Sequence[tuple[str, Fields]]:
    """Return the parts of a content; a text is one part."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise wrong(f"{where} must be a text or a list of parts.", where, "invalid_type")
    if len(content) > MESSAGES:
        raise wrong(f"{where} has more than {MESSAGES} parts.", where)
    named = ((f"{where}[{i}]", part) for i, part in enumerate(content))
    return [(at, Fields(part, at)) for at, part in named]
