"""Let lmms-eval run OmniDrop, on all of its video tasks.

An installed omnidrop announces itself to lmms-eval (entry point `lmms_eval.models`):

    python -m lmms_eval --model omnidrop --tasks worldsense --batch_size 1 \\
        --model_args pretrained=7b,quantize=4bit,method=omnidrop,budget=0.3

For an lmms-eval without entry points, call this module's `register` first. lmms-eval is not a
dependency: it is imported only when it asks for the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.evaluation.records import key_of
from omnidrop.options import DEFAULT_BUDGET

NAME = "omnidrop"

#: Arguments that lmms-eval passes to every model and that have no meaning here.
_IGNORED = ("max_batch_size", "device_map", "use_cache")


def manifest() -> Any:
    """Return the entry for lmms-eval's model registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.OmniDropLmms")


def register() -> type:
    """Register the class with lmms-eval's decorator, for versions without entry points."""
    from lmms_eval.api.registry import register_model

    registered: type = register_model(NAME)(_adapter())
    return registered


def __getattr__(name: str) -> Any:
    if name == "OmniDropLmms":
        return _adapter()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Asker:
    """Answers lmms-eval's requests; independent of lmms-eval's interface.

    Parameters
    ----------
    pretrained : str, optional
        Alias, hub name or folder, as in `omnidrop.load`.
    method : str
    budget : float
    seed : int
    system_prompt : str, optional
        Default the model family's own.
    fps, max_frames, max_pixels : optional
        Sampling; default the library's own.
    use_audio : bool
        Use the clips' audio.
    device, dtype, quantize, attention : str, optional
        As in `omnidrop.LoadOptions`.
    **fields
        Hyper-parameters of the method.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        method: str = "omnidrop",
        budget: float = DEFAULT_BUDGET,
        seed: int = 0,
        system_prompt: str | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        max_pixels: int | None = None,
        use_audio: bool = True,
        device: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        attention: str = "sdpa",
        **fields: Any,
    ) -> None:
        from omnidrop.clip.clip import ClipOptions
        from omnidrop.engine.model import load
        from omnidrop.pruning.registry import get_method

        if method != "none":
            fields["budget"] = budget
        self.method = get_method(method, **fields)
        asked = {"fps": fps, "max_frames": max_frames, "max_pixels": max_pixels}
        given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        self.options = ClipOptions(audio=use_audio, **given)
        self.seed, self.system = seed, system_prompt
        self.model = load(
            pretrained, device=device, dtype=dtype, quantize=quantize, attention=attention
        )

    def answers(
        self, asked: Sequence[tuple[str, dict[str, Any], Path]]
    ) -> Iterator[tuple[int, str]]:
        """Yield the number and reply of each (text, generation settings, clip), clip by clip."""
        by_clip: dict[Path, list[int]] = {}
        for number, (_, _, path) in enumerate(asked):
            by_clip.setdefault(path, []).append(number)
        for path, numbers in by_clip.items():
            with self.model.open(path, self.options) as session:
                for number in numbers:
                    text, settings, _ = asked[number]
                    options, until = self._options(settings)
                    answer = session.ask(
                        text, method=self.method, options=options, system=self.system
                    )
                    yield number, cut(answer.text, until)

    def _options(self, settings: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
        """Return generation options and stop texts for lmms-eval's `generation_kwargs`."""
        from omnidrop.engine.decode import GenerateOptions

        if settings.get("num_beams") not in (None, 1):
            raise UsageError("Beam search is not supported.", hint="Set num_beams to 1.")
        sampled = settings.get("do_sample") is not False
        until = settings.get("until") or ()
        return (
            GenerateOptions(
                max_new_tokens=int(settings.get("max_new_tokens") or 128),
                temperature=float(settings.get("temperature") or 0.0) if sampled else 0.0,
                top_p=float(settings.get("top_p") or 1.0),
                seed=self.seed,
            ),
            (until,) if isinstance(until, str) else tuple(until),
        )


def cut(text: str, until: Iterable[str]) -> str:
    """Return a text up to the first of some stop texts."""
    for stop in until:
        if stop:
            text = text.split(stop)[0]
    return text


def clip_of(visuals: Any) -> Path:
    """Return the one clip of a request's visuals.

    Raises
    ------
    UsageError
        If there is none, more than one, or it is not a file: images and audio alone are not
        supported.
    """
    flat = [v for part in visuals for v in (part if isinstance(part, (list, tuple)) else [part])]
    if len(flat) != 1 or not isinstance(flat[0], (str, os.PathLike)):
        kinds = ", ".join(type(v).__name__ for v in flat) or "nothing"
        raise UsageError(
            f"One local clip per question can be asked about, not: {kinds}.",
            hint="Choose a video task of lmms-eval.",
        )
    return Path(flat[0])


@cache
def _adapter() -> type:
    """Return the class that lmms-eval uses; it must inherit from theirs."""
    from lmms_eval.api.model import lmms

    class OmniDropLmms(lmms):
        """OmniDrop as a model of lmms-eval; arguments as in `Asker`."""

        is_simple = True

        def __init__(
            self, pretrained: str | None = None, batch_size: int | str = 1, **settings: Any
        ) -> None:
            super().__init__()
            if str(batch_size) != "1":
                raise UsageError("Questions are asked one by one.", hint="Set --batch_size 1.")
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise UsageError(
                    "One process asks all questions.", hint="Start lmms-eval without a launcher."
                )
            kept = {key: v for key, v in settings.items() if key not in _IGNORED}
            self.asker = Asker(pretrained, **kept)
            info = self.asker.model.info
            self.model_name = f"{info.name}-{key_of(self.asker.method.settings(), info.dtype)}"

        @property
        def device(self) -> Any:
            """Where the model is."""
            return self.asker.model.adapter.device

        @property
        def batch_size(self) -> int:
            """Always one."""
            return 1

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """Answer every request; an error stops the run instead of counting as an answer."""
            asked = []
            for request in requests:
                text, settings, to_visual, number, task, split = request.args
                document = self.task_dict[task][split][number]
                asked.append((text, dict(settings), clip_of(to_visual(document))))
            replies = [""] * len(asked)
            for number, reply in self.asker.answers(asked):
                replies[number] = reply
                text, settings, _ = asked[number]
                self.cache_hook.add_partial("generate_until", (text, settings), reply)
            return replies

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("omnidrop answers generation tasks of lmms-eval only")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError("omnidrop answers one question at a time")

    OmniDropLmms.__module__ = __name__
    OmniDropLmms.__qualname__ = "OmniDropLmms"
    return OmniDropLmms
