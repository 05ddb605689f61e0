"""What a client and the host of a warm model say to each other, and where they meet.

A message is its length in four bytes and a JSON object. The first one of a client carries open
files: stdin, stdout, stderr and the working directory. They meet at a Unix socket that only its
user can open; each side checks that the other is of the same user.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
from typing import Any

#: Changes when messages do.
PROTOCOL = 1
VARIABLE = "OMNIDROP_SOCKET"
NAME = "serve.sock"
#: Commands that a warm model can run.
SERVED = ("ask", "batch", "chat")
#: Files that come with a command: stdin, stdout, stderr, working directory.
FILES = 4
#: Longest message in bytes: a command line and an environment are at most a few megabytes.
LONGEST = 16 * 2**20
#: Longest path that a socket can have (sun_path: 108 bytes on Linux, 104 on macOS).
LONGEST_PATH = 100
#: FreeBSD's and macOS's socket option for the peer's user, and the size of what it returns.
_LOCAL_PEERCRED, _XUCRED = 1, 76


class Broken(OSError):
    """The other side left, or said something that is no message."""


def is_supported() -> bool:
    """Return whether this system can hand open files to another process."""
    return hasattr(socket, "AF_UNIX") and hasattr(socket, "send_fds")


def socket_path() -> str:
    """Return where the socket is: OMNIDROP_SOCKET, or in the user's folder for such things."""
    named = os.environ.get(VARIABLE)
    if named:
        return os.path.expanduser(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_own_folder(runtime):
        return os.path.join(runtime, "omnidrop", NAME)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(state, "omnidrop", "serve", NAME)


def _is_own_folder(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def is_private(folder: str) -> bool:
    """Return whether a folder is the user's own, and nobody else can look into it."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return _is_own_folder(folder) and not found.st_mode & 0o077


def address(path: str) -> tuple[str, int | None]:
    """Return what `bind` and `connect` take, and a file to close afterwards.

    A path may be longer than the system allows; Linux also takes a short one by way of its folder.
    """
    if len(os.fsencode(path)) <= LONGEST_PATH or sys.platform != "linux":
        return path, None
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{os.path.basename(path)}", folder


def connect(path: str, timeout: float) -> socket.socket:
    """Connect to the host at `path`.

    Raises
    ------
    OSError
        If there is none, or its socket, its folder or itself is another user's.
    """
    folder = os.path.dirname(path)
    found = os.lstat(path)
    if not is_private(folder) or not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError("the socket is not this user's alone")
    where, handle = address(path)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        link.connect(where)
        check_peer(link)
    except BaseException:
        link.close()
        raise
    finally:
        if handle is not None:
            os.close(handle)
    return link


def lock(path: str) -> int | None:
    """Take a place for this process until the file returned is closed; None if another has it.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    import fcntl

    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def check_peer(link: socket.socket) -> None:
    """Refuse a peer of another user.

    Raises
    ------
    PermissionError
        If it is one.
    """
    if peer_user(link) != os.geteuid():
        raise PermissionError("the other side is another user")


def peer_user(link: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is not None:
        return struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, option, 12))[1]
    # struct xucred: version, user id, groups; at level SOL_LOCAL, which is 0.
    return struct.unpack("=II", link.getsockopt(0, _LOCAL_PEERCRED, _XUCRED)[:8])[1]


def send(link: socket.socket, message: dict[str, Any], files: tuple[int, ...] = ()) -> None:
    """Send a message, with open files if there are any."""
    text = json.dumps(message).encode()
    head = struct.pack("!I", len(text))
    if files:
        socket.send_fds(link, [head], files)
    else:
        text = head + text
    link.sendall(text)


def receive(link: socket.socket) -> dict[str, Any] | None:
    """Return the next message, or None if the other side has left.

    Raises
    ------
    Broken
        If it is no message.
    """
    head = _exactly(link, 4, begun=False)
    return None if head is None else _body(link, head)


def receive_with_files(link: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message, and the open files that came with it; the caller closes those.

    Raises
    ------
    Broken
        If it is no message; the files are closed.
    """
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    head, files, _, _ = socket.recv_fds(link, 4, FILES, flags)
    try:
        if not head:
            return None, files
        rest = _exactly(link, 4 - len(head)) if len(head) < 4 else b""
        return _body(link, head + (rest or b"")), files
    except BaseException:
        for file in files:
            os.close(file)
        raise


def _body(link: socket.socket, head: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("!I", head)
    if length > LONGEST:
        raise Broken("a message is too long")
    text = _exactly(link, length)
    try:
        message = json.loads(text or b"")
    except (ValueError, RecursionError) as problem:
        raise Broken("a message is not JSON") from problem
    if not isinstance(message, dict):
        raise Broken("a message is not an object")
    return message


def _exactly(link: socket.socket, count: int, *, begun: bool = True) -> bytes | None:
    """Return the next `count` bytes; None if the other side left before the first of a message."""
    parts: list[bytes] = []
    left = count
    while left:
        part = link.recv(min(left, 2**20))
        if not part:
            if parts or begun:
                raise Broken("a message ends too soon")
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
