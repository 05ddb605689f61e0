"""`omnidrop serve`: one loaded model for every command line of its user, and over HTTP."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from omnidrop.errors import ModelError, UsageError, printable
from omnidrop_cli.options.common import Debug, Json, ModelFlags, Quiet
from omnidrop_cli.options.groups import grouped
from omnidrop_cli.options.serve import ServeFlags

if TYPE_CHECKING:
    from omnidrop import LoadOptions, Model

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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    serve: ServeFlags,
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
    return _serve(serve, model, path, quiet=quiet, debug=debug)


def _serve(flags: ServeFlags, model: ModelFlags, path: str, *, quiet: bool, debug: bool) -> int:
    """Load the model and serve it until the end; return the exit code."""
    from omnidrop.serving.warm import WarmModel
    from omnidrop_cli.errors import complain
    from omnidrop_cli.libraries import downloads, silence_warnings
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

    def prepare() -> None:
        with progress:
            progress("load the model", 0, None)
            preload(warm, told)
        info = warm.info()
        if not quiet:
            complain(
                f"{info.name} in {info.dtype} on {info.device} is served at {printable(path)}. "
                "Ctrl-C ends it.",
                "notice",
            )

    host = Host(warm, path)
    try:
        host.listen()
        host.run(prepare)
    finally:
        host.close()
        warm.close()
    return 0


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
                "It does not end.", path=path, hint=f"End its process: kill -9 {found.get('pid')}"
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
