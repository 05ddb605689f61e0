"""What the endpoints share: the desk, the clips, what is kept, and what is counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import did_you_mean
from omnidrop.serving.clips import Clips
from omnidrop.serving.desk import Desk
from omnidrop.serving.estimates import Costs
from omnidrop.serving.guard import Bodies
from omnidrop.serving.metrics import Metrics
from omnidrop.serving.openings import Openings
from omnidrop.serving.problems import Refused, busy
from omnidrop.serving.sessions import Sessions, Turns
from omnidrop.serving.settings import MIB, HttpSettings

if TYPE_CHECKING:
    from omnidrop.engine.model import Model
    from omnidrop.recommended import Recommended
    from omnidrop.serving.warm import WarmModel

#: Name of the model in requests that do not care which it is.
ANY = "omnidrop"

#: Bodies of this many requests of the largest size may be in memory at a time.
BODIES = 8


class State:
    """Of one server.

    Parameters
    ----------
    warm : WarmModel
    settings : HttpSettings

    Attributes
    ----------
    recommended : Recommended or None
        The model's default method, once it was loaded.
    stopping : bool
    """

    def __init__(self, warm: WarmModel, settings: HttpSettings) -> None:
        self.warm, self.settings = warm, settings
        self.metrics = Metrics()
        self.clips = Clips(settings)
        self.sessions, self.turns = Sessions(settings.cache), Turns()
        self.openings = Openings()
        self.desk = Desk(warm, settings.queue)
        most = settings.max_inline * 4 // 3 + MIB
        self.bodies = Bodies(most, BODIES * most)
        self.costs = Costs(warm)
        self.began = int(time.time())
        self.recommended: Recommended | None = None
        self.stopping = False
        self._name = warm.info().name
        warm.when_dropped(self.sessions.clear)

    def stop(self) -> None:
        """Take no more requests, and stop what runs."""
        self.stopping = True
        self.desk.stop()

    def close(self) -> None:
        """Stop, and delete what clients sent."""
        self.stop()
        self.desk.join()
        self.sessions.clear()
        self.clips.close()

    def know(self, model: Model) -> None:
        """Note what is known of a model once it is loaded."""
        self._name = model.info.name
        self.recommended = model.recommended

    def recommendation(self, seconds: float) -> Recommended:
        """Return the model's default method; load the model if that is not known yet.

        Raises
        ------
        Refused
            If the model is not free within `seconds`.
        """
        if self.recommended is None:
            with self.warm.try_use(seconds) as model:
                if model is None:
                    raise busy()
                self.know(model)
        assert self.recommended is not None
        return self.recommended

    @property
    def name(self) -> str:
        """The model's name for clients."""
        named = self._name or self.warm.options.model or ANY
        return Path(named).name if Path(named).is_absolute() else named

    def check_model(self, asked: str | None) -> str:
        """Return the model's name, if it is the one that a request asks for.

        Raises
        ------
        Refused
            Status 404 for another model.
        """
        known = {self.name, self._name, self.warm.options.model, ANY} - {"", None}
        if asked is None or asked in known:
            return self.name
        hint = did_you_mean(asked, [self.name])
        raise Refused(
            404,
            f"There is no model {asked[:100]!r} here. {hint}This server has {self.name!r}.",
            param="model",
            code="model_not_found",
        )

    def gauges(self) -> dict[str, float]:
        """Return values of this moment, for `Metrics.text`."""
        info = self.warm.info()
        return {
            "queue_waiting": self.desk.waiting,
            "queue_running": int(self.desk.running),
            "model_loaded": int(info.loaded),
            "encodings": len(self.sessions),
            "encodings_bytes": self.sessions.bytes,
            "encoding_hits_total": self.sessions.hits,
            "encoding_misses_total": self.sessions.misses,
            "uploads_bytes": self.clips.uploads.bytes,
            "memory_bytes": info.host_memory,
        }
