"""The process of a warm model: it runs the commands of clients, one after another.

A command runs in the main thread, with the client's own files, folder and environment, through the
same code as in a process of its own; so that what it writes and how it ends is the same. Threads
listen and pass signals on. Commands have their turns in the order in which they came; one that asks
for another model is refused, and its client runs it itself.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from omnidrop.errors import UsageError, printable
from omnidrop.serving.warm import WarmModel
from omnidrop.stages import Progress
from omnidrop_cli import interrupts, loading
from omnidrop_cli.calling import Run
from omnidrop_cli.serving import protocol
from omnidrop_cli.serving.borrowed import Own, Stream, Surroundings, give_files_away
from omnidrop_cli.serving.fitting import Fitting

#: Commands that may take hours: nobody waits for their end.
LONG = ("batch", "chat")
#: Seconds in which a client must say what it wants, and start when it may.
HELLO_WITHIN, GO_WITHIN = 10.0, 20.0
#: Seconds between interrupts of a command whose client has gone.
AGAIN = 3.0
#: Waits between two commands after which what they left is collected.
IDLE = 0.5


class Refused(BaseException):
    """A command that this process cannot run; no Exception, so that no command handles it."""


class Caller:
    """A client that is connected: what it asked for, and what it is told.

    Attributes
    ----------
    words : list of str
    surroundings : Surroundings
    files : list of int
        Its stdin, stdout, stderr and working directory.
    gone : bool
        Whether it has left.
    """

    def __init__(self, link: socket.socket, hello: dict[str, Any], files: list[int]) -> None:
        self.words = [str(word) for word in hello["words"]]
        environment = {str(k): str(v) for k, v in hello["environment"].items()}
        streams = tuple(Stream(*stream) for stream in hello["streams"])
        if len(files) != protocol.FILES or len(streams) != 3:
            raise protocol.Broken("a command comes with stdin, stdout, stderr and a folder")
        self.surroundings = Surroundings(environment, int(hello["mask"]) & 0o777, streams)
        self.files = files
        self.gone = False
        self.may_go = threading.Event()
        self.paused = threading.Event()
        self.goes_on = threading.Event()
        self._link = link
        self._guard = threading.RLock()

    def say(self, said: str, **more: Any) -> None:
        """Send a message; one who has left misses nothing."""
        with self._guard, suppress(OSError):
            protocol.send(self._link, {"say": said, **more})

    def close_files(self) -> None:
        """Close the files of a caller that is not served."""
        with self._guard:
            while self.files:
                os.close(self.files.pop())

    def take_files(self) -> list[int]:
        """Return the files, which whoever took them closes."""
        with self._guard:
            taken, self.files = self.files, []
            return taken


class Host:
    """Serves a warm model at a socket.

    Parameters
    ----------
    warm : WarmModel
    path : str
        Of the socket.
    run : Run
        Runs a command line.
    """

    def __init__(self, warm: WarmModel, path: str, run: Run) -> None:
        self._warm, self._path, self._run_words = warm, path, run
        self._own = Own()
        self._fitting = Fitting(warm)
        self._calls: queue.SimpleQueue[Caller | None] = queue.SimpleQueue()
        self._current: Caller | None = None
        self._command = ""
        self._preparing = True
        self._running = False
        self._stopping = False
        self._done = 0
        self._main = threading.get_ident()
        self._guard = threading.RLock()
        self._waiting: list[Caller] = []
        self._listener: socket.socket | None = None
        self._made: tuple[int, int] | None = None
        self.log = self._own.log

    # From beginning to end

    def listen(self) -> None:
        """Take the socket; callers are heard from now on and served by `run`.

        Raises
        ------
        UsageError
            If another process serves there, or the place is not the user's alone.
        """
        folder = os.path.dirname(self._path) or "."
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as problem:
            raise UsageError(
                f"The folder of the socket cannot be made ({problem.strerror}).",
                path=folder,
                hint="Name another with --socket.",
            ) from problem
        if not protocol.is_private(folder):
            raise UsageError(
                "Others can look into the folder of the socket.",
                path=folder,
                hint="Name another with --socket, or: chmod 700 on that folder.",
            )
        try:
            taken = protocol.lock(self._path) is not None  # until the end of the process
        except OSError as problem:
            raise UsageError(
                f"The socket cannot be made ({problem.strerror}).",
                path=self._path,
                hint="Name another with --socket.",
            ) from problem
        if not taken:
            raise UsageError(
                "omnidrop serve runs already.",
                path=self._path,
                hint="See omnidrop serve --status; --stop ends it, --socket FILE is for another.",
            )
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # left by a process that was killed: nobody holds its lock
        where, handle = protocol.address(self._path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(where)
        except OSError as problem:
            raise UsageError(
                f"The socket cannot be made ({problem.strerror or problem}).",
                path=self._path,
                hint="Name another with --socket, with a short path.",
            ) from problem
        finally:
            os.umask(mask)
            if handle is not None:
                os.close(handle)
        made = os.stat(self._path)
        self._made = made.st_dev, made.st_ino
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True, name="listen").start()

    def run(self, prepare: Callable[[], None]) -> None:
        """Prepare, then serve callers until `stop`, Ctrl-C or SIGTERM; in the main thread.

        Parameters
        ----------
        prepare : callable
            Loads the model; callers wait meanwhile, and a signal interrupts it.
        """
        with self._signals():
            prepare()
            self._preparing = False
            while not self._stopping:
                try:
                    caller = self._calls.get(timeout=IDLE)
                except queue.Empty:
                    self._tidy()
                    caller = self._calls.get()
                if caller is not None and not self._stopping:
                    self._serve(caller)

    def stop(self) -> None:
        """End `run`: now, or when the command that runs has been interrupted."""
        os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """Leave the socket, and say goodbye to those who wait."""
        self._stopping = True
        if self._listener is not None:
            with suppress(OSError):
                found = os.stat(self._path)
                if (found.st_dev, found.st_ino) == self._made:
                    os.unlink(self._path)
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._refuse_waiting("omnidrop serve was stopped")
        self._own.close()

    # Callers

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stopping:
            try:
                link, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.1)  # too many open files, for the moment
                continue
            threading.Thread(target=self._hear, args=(link,), daemon=True, name="caller").start()

    def _hear(self, link: socket.socket) -> None:
        """Hear one connection to its end; whatever it says harms no other."""
        with link:
            try:
                link.settimeout(HELLO_WITHIN)
                protocol.check_peer(link)
                hello, files = protocol.receive_with_files(link)
                try:
                    self._answer(link, hello or {}, files)
                finally:
                    for file in files:
                        os.close(file)
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                return

    def _answer(self, link: socket.socket, hello: dict[str, Any], files: list[int]) -> None:
        said = hello.get("say")
        if said == "status":
            protocol.send(link, {"say": "status", **self.status()})
        elif said == "stop":
            protocol.send(link, {"say": "stopping", "pid": os.getpid()})
            self.stop()
        elif said == "run":
            why = self._fitting.unlike(hello) or self._busy()
            if why:
                protocol.send(link, {"say": "refused", "why": why})
                return
            caller = Caller(link, hello, files[:])
            files.clear()
            self._line_up(caller)
            try:
                self._follow(caller, link)
            finally:
                self._left(caller)

    def _busy(self) -> str:
        with self._guard:
            if self._stopping:
                return "omnidrop serve is being stopped"
            return f"omnidrop {self._command} uses it" if self._command in LONG else ""

    def _line_up(self, caller: Caller) -> None:
        with self._guard:
            self._waiting.append(caller)
            if self._preparing:
                caller.say("wait")
            elif self._current is not None or len(self._waiting) > 1:
                caller.say("wait", command=self._command or "ask")
        self._calls.put(caller)

    def _follow(self, caller: Caller, link: socket.socket) -> None:
        """Do what a caller says while its command waits and runs."""
        link.settimeout(None)
        while (message := protocol.receive(link)) is not None:
            said = message.get("say")
            if said == "go":
                caller.may_go.set()
            elif said == "interrupt":
                self._signal(caller, signal.SIGUSR1)
            elif said == "resized" and "readline" in sys.modules:
                self._signal(caller, signal.SIGWINCH)
            elif said == "pause":
                caller.goes_on.clear()
                self._signal(caller, signal.SIGUSR2)
            elif said == "continue":
                caller.goes_on.set()

    def _left(self, caller: Caller) -> None:
        """A caller has gone, or its command has ended."""
        with self._guard:
            caller.gone = True
            if caller in self._waiting:
                self._waiting.remove(caller)
                caller.close_files()
        caller.may_go.set()
        caller.goes_on.set()
        while True:
            with self._guard:
                if self._current is not caller:
                    return
                give_files_away()  # so that nobody waits for the end of a pipe
                signal.pthread_kill(self._main, signal.SIGUSR1)
            time.sleep(AGAIN)

    def _signal(self, caller: Caller, number: int) -> None:
        with self._guard:
            if self._current is caller:
                signal.pthread_kill(self._main, number)

    def _refuse_waiting(self, why: str) -> None:
        with self._guard:
            waiting, self._waiting = self._waiting, []
        for caller in waiting:
            caller.say("refused", why=why)
            caller.close_files()

    # The command that runs

    def _serve(self, caller: Caller) -> None:
        with self._guard:
            if caller not in self._waiting:  # left, or refused
                return
            self._waiting.remove(caller)
            self._current = caller
        try:
            files = caller.take_files()
            with self._own.lend(files, caller.surroundings):
                said, more = self._attend(caller)
        except Exception as problem:  # of what the caller sent
            said, more = "refused", {"why": f"it cannot be served ({type(problem).__name__})"}
        finally:
            with self._guard:
                self._current, self._command = None, ""
                self._own.take_files()  # the caller may have left in the last moment
            caller.close_files()
        caller.say(said, **more)
        self._done += 1

    def _attend(self, caller: Caller) -> tuple[str, dict[str, Any]]:
        """Let a caller begin, and run its command; return what it is told at the end."""
        caller.say("run")
        if not caller.may_go.wait(GO_WITHIN) or caller.gone:
            return "ended", {"code": interrupts.INTERRUPTED}
        self._fitting.renew()
        # Outside of what an interrupt can reach: the turn is given back, whatever happens.
        with interrupts.not_ending(lambda: self._let_go(caller)), loading.from_warm(self._warm):
            return self._run(caller)

    def _run(self, caller: Caller) -> tuple[str, dict[str, Any]]:
        """Run the caller's command; return what it is told at the end."""
        from omnidrop_cli.terminal import spinner

        def admit(name: str, parameters: dict[str, Any]) -> None:
            why = self._fitting.why_not(name, parameters)
            if why:
                raise Refused(why)
            with self._guard:
                self._command = name
            if name in LONG:
                self._refuse_waiting(f"omnidrop {name} uses it")

        code = interrupts.INTERRUPTED
        try:
            try:
                self._running = True
                code = self._run_words(caller.words, admit)
            finally:
                self._running = False
        except Refused as problem:
            return "refused", {"why": str(problem)}
        except KeyboardInterrupt:
            self._running = False
        finally:
            spinner.forget()
            _forget_readline()
        if self._stopping:
            return "stopped", {}
        return "ended", {"code": code}

    def _let_go(self, caller: Caller) -> None:
        """A second Ctrl-C ends a process at once; here it lets the caller go at once."""
        caller.say("ended", code=interrupts.INTERRUPTED)
        give_files_away()

    def _tidy(self) -> None:
        """Between commands: collect what they left."""
        if self._done:
            gc.collect()
            self._done = 0

    # Signals, which reach the main thread alone

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: self._end,
            signal.SIGTERM: self._end,
            signal.SIGUSR1: self._interrupt,
            signal.SIGUSR2: self._pause,
        }
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
            handlers[signal.SIGHUP] = self._end
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._stopping and self._running:
            os._exit(interrupts.INTERRUPTED)  # the command does not end
        self._stopping = True
        self._calls.put(None)
        if self._preparing:
            raise KeyboardInterrupt
        self._interrupt(number, frame)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._running:
            interrupts.interrupt()

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Hold the command until its caller goes on."""
        caller = self._current
        if caller is not None and self._running:
            caller.say("paused")
            caller.goes_on.wait()

    # What others may know

    def status(self) -> dict[str, Any]:
        """Return the state of this process, ready for JSON."""
        info = self._warm.info()
        with self._guard:
            running, waiting = self._command, len(self._waiting)
        return {
            "pid": os.getpid(),
            "socket": printable(self._path),
            "model": info.name or str(self._warm.options.model or "the default"),
            "loaded": info.loaded,
            "device": info.device,
            "dtype": info.dtype,
            "idle": info.idle,
            "keep_alive": info.keep_alive,
            "uses": info.uses,
            "running": running,
            "waiting": waiting + info.waiting,
            "host_memory": info.host_memory,
            "device_memory": info.device_memory,
        }


def _forget_readline() -> None:
    """Forget what was typed in a chat: the next one has its own history."""
    readline = sys.modules.get("readline")
    if readline is not None:
        readline.clear_history()
        readline.set_completer(None)


def preload(warm: WarmModel, progress: Progress | None = None) -> None:
    """Load the model and import what commands import, so that none of them has to.

    An import that Ctrl-C ends halfway cannot always be repeated in the same process.

    Raises
    ------
    OmniDropError
        Whatever `omnidrop.load` raises.
    """
    import pkgutil
    from importlib import import_module

    import rich.progress  # noqa: F401

    import omnidrop.clip
    import omnidrop.engine
    import omnidrop.pruning
    import omnidrop_cli

    for package in (omnidrop.clip, omnidrop.engine, omnidrop.pruning, omnidrop_cli):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                import_module(found.name)
    with warm.use(progress):
        pass
    # What is there now stays: collecting after each command need not look at it.
    gc.collect()
    gc.freeze()
    warm.when_dropped(gc.unfreeze)


__all__ = ["Caller", "Host", "Refused", "preload"]
