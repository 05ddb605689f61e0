"""`omnidrop serve`: one loaded model for every command line of its user, and over HTTP."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import typer

from omnidrop.errors import ModelError, UsageError, printable
from omnidrop_cli.options.common import Debug, Json, ModelFlags, Quiet
from omnidrop_cli.options.groups import grouped
from omnidrop_cli.options.serve import ServeFlags
from omnidrop_cli.options.serve_http import API_KEY, HttpFlags

if TYPE_CHECKING:
    from omnidrop import LoadOptions, Model
    from omnidrop.serving.warm import WarmModel
    from omnidrop_cli.calling import Run

#: Seconds in which the process that serves answers, and in which it ends.
PATIENCE = 15.0

NAME = "serve"
HELP = """Keep a model loaded for every omnidrop ask, batch and chat that follows.

\b
Examples:
  omnidrop serve --model demo
  omnidrop serve --model 3b --keep-alive 1h
  omnidrop serve --status
  omnidrop serve --stop

While it runs, ask, batch and chat find it by themselves, and answer without loading the model: the
same answer, report and exit code, sooner. It runs until Ctrl-C, SIGTERM or --stop; to have it in
the background, end the command with &.

A command that asks for another model, device or dtype than is served, or that --no-serve or
OMNIDROP_NO_SERVE keeps from it, loads its own as ever; --report full says why. Several commands
have their turns in the order in which they came. While a batch or a chat runs, others load a model
of their own.

Commands find it by a socket that no other user can open: serve.sock in $XDG_RUNTIME_DIR/omnidrop,
else in ~/.local/state/omnidrop/serve, or the file that OMNIDROP_SOCKET names.
"""


@grouped
def command(
    context: typer.Context,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    serve: ServeFlags,
    http: HttpFlags,
    model: ModelFlags,
) -> int:
    """Keep a model loaded."""
    from omnidrop_cli.serving import protocol

    path = str(serve.socket.expanduser()) if serve.socket is not None else protocol.socket_path()
    path = os.path.abspath(path)
    if serve.status or serve.stop:
        found = _asked(path, "stop" if serve.stop else "status")
        if serve.status:
            _show(found, json)
        return 0
    if not protocol.is_supported() and serve.http is None:
        raise UsageError(
            "This system cannot hand a terminal to another process, so nothing can be served to "
            "commands.",
            hint="Serve over HTTP alone: --http 127.0.0.1:8000",
        )
    if serve.http is not None:
        _check_http()
    _serve(context.obj.run, serve, http, model, path, quiet=quiet, debug=debug)
    return 0


def _serve(
    run: Run,
    flags: ServeFlags,
    http: HttpFlags,
    model: ModelFlags,
    path: str,
    *,
    quiet: bool,
    debug: bool,
) -> None:
    """Load the model, and serve it until the end."""
    from omnidrop.serving.warm import WarmModel
    from omnidrop_cli.errors import complain
    from omnidrop_cli.libraries import downloads, silence_warnings
    from omnidrop_cli.serving import protocol
    from omnidrop_cli.serving.fitting import pin
    from omnidrop_cli.serving.host import Host, preload
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    silence_warnings(debug)
    progress = Progress(is_terminal(sys.stderr) and not quiet)
    told = downloads(progress, quiet=quiet)
    with progress:
        progress("find the model", 0, None)
        warm = WarmModel(pin(model.load_options(), told), flags.seconds, load=_load)

    host = Host(warm, path, run) if protocol.is_supported() else None
    places = [] if host is None else [printable(path)]

    def prepare() -> None:
        with progress:
            progress("load the model", 0, None)
            preload(warm, told)
        if flags.http is not None:
            log = sys.stderr if host is None else host.log
            places.insert(0, serving.enter_context(_over_http(warm, http, flags.http, log)))
        info = warm.info()
        if not quiet:
            complain(
                f"{info.name} in {info.dtype} on {info.device} is served at "
                f"{' and '.join(places)}. Ctrl-C ends it.",
                "notice",
            )

    with ExitStack() as serving:
        serving.callback(warm.close)
        if host is None:
            complain("Without Unix sockets it is served over HTTP alone, not to ask.", "notice")
            prepare()
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            serving.callback(host.close)
            host.listen()
            host.run(prepare)


def _check_http() -> None:
    """Refuse --http where what it needs is not installed.

    Raises
    ------
    UsageError
        Names the extra.
    """
    from importlib.util import find_spec

    if not all(map(find_spec, ("starlette", "uvicorn", "python_multipart"))):
        raise UsageError(
            "--http needs packages that are not installed.",
            hint="Install them: pip install 'omnidrop[serve]'",
        )


@contextmanager
def _over_http(warm: WarmModel, http: HttpFlags, address: str, log: TextIO) -> Iterator[str]:
    """Serve over HTTP in a thread of its own during the block; yields the address."""
    from ipaddress import ip_address

    from omnidrop.serving.server import http_server
    from omnidrop_cli.errors import complain

    settings = http.settings(address, log=log)
    host = settings.host.strip("[]")
    try:
        private = ip_address(host).is_loopback
    except ValueError:
        private = host == "localhost"
    if not private and settings.api_key is None:
        complain(
            f"Everybody who can reach {host} can ask: set {API_KEY} to have a key asked for.",
            "notice",
        )
    with http_server(warm, settings) as url:
        yield url


def _load(options: LoadOptions, progress: Any) -> Model:
    import omnidrop

    return omnidrop.load(options, progress=progress)


def _asked(path: str, what: str) -> dict[str, Any]:
    """Return what the process that serves says to "status" or "stop"; stopped, it has ended.

    Raises
    ------
    ModelError
        If none serves there.
    """
    from omnidrop_cli.serving import protocol

    try:
        with protocol.connect(path, PATIENCE) as link:
            protocol.send(link, {"say": what})
            found = protocol.receive(link)
    except OSError:
        found = None
    if found is None:
        raise ModelError(
            "No omnidrop serve runs here.", path=path, hint="Start one: omnidrop serve --model demo"
        )
    until = time.monotonic() + PATIENCE
    while what == "stop":
        handle = protocol.lock(path)
        if handle is not None:
            os.close(handle)
            break
        if time.monotonic() > until:
            raise ModelError(
                f"It was told to stop, and has not ended after {PATIENCE:g} s.",
                path=path,
                hint="It ends after the step of an answer that it is at. To end it now: kill -9 "
                f"{found.get('pid')}",
            )
        time.sleep(0.02)
    return found


def _show(found: dict[str, Any], json: bool) -> None:
    """Write the state of the process that serves."""
    from omnidrop import format as fmt
    from omnidrop.files import to_json

    if json:
        known = {key: value for key, value in found.items() if key != "say"}
        print(to_json({"schema": "omnidrop.serve/1", **known}, indent=2))
        return
    keep = found["keep_alive"]
    after = "kept always" if keep is None else f"dropped after {fmt.duration(keep)} without use"
    loaded = f"{found['dtype']} on {found['device']}" if found["loaded"] else "not loaded now"
    doing = f"runs omnidrop {found['running']}" if found["running"] else "idle"
    if not found["running"] and found["idle"] >= 1:
        doing = f"idle for {fmt.duration(found['idle'])}"
    if found["waiting"]:
        doing += f", {found['waiting']} waiting"
    memory = fmt.size(found["host_memory"])
    if found["device_memory"] is not None:
        memory += f", and {fmt.size(found['device_memory'])} on the GPU"
    rows = {
        "model": f"{found['model']}, {loaded}; {after}",
        "state": f"{doing}; used {found['uses']} times",
        "memory": memory,
        "socket": found["socket"],
        "process": str(found["pid"]),
    }
    for name, text in rows.items():
        print(f"{name:<8} {text}")
