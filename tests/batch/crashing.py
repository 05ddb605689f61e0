"""What a worker of a test does first: makes questions end, stop or hang the process."""

from __future__ import annotations

import os
import signal
import time

from omnidrop.batch.ray_reading import Reading
from omnidrop.engine.session import Session


def misbehave() -> None:
    """Let a question do what it says; importable by a worker."""
    ask = Session.ask

    def asked(self, question, **settings):
        if "crash" in question:
            os.abort()
        if "killed" in question:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in question:
            time.sleep(60)
        if "hang" in question:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(600)
        return ask(self, question, **settings)

    Session.ask = asked


def while_reading() -> None:
    """Let a task of a cluster end in a clip whose name says so; an actor may not read with it."""
    import ray

    read = Reading.read

    def crashed(self, row):
        assert ray.get_runtime_context().get_actor_id() is None
        if "crash" in row.clip.name:
            os.abort()
        return read(self, row)

    Reading.read = crashed
