"""Chromium without a window, driven over a pipe, for tests of saved pages and of the served one.

Chrome DevTools Protocol: JSON messages that end in a zero byte, read by the browser from descriptor
3 and written to descriptor 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--remote-debugging-pipe", "--hide-scrollbars", "--mute-audio",
    "--disable-background-networking", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
PATIENCE = 60.0
#: Codes of the keys that have no character.
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowRight": 39}


def chromium() -> str | None:
    """Return the browser of this machine, if it has one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab.

    Parameters
    ----------
    given, told : int
        Descriptors: to write to, and to read from.
    """

    def __init__(self, given: int, told: int) -> None:
        self._given, self._told = given, told
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Return the result of a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._given, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._told], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._told, 1 << 16) if ready else b""
            if not more:
                raise RuntimeError("The browser does not answer.")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def open(self, page: Path | str, width: int, height: int = 844, *, dark: bool = False) -> None:
        """Load a page, by file or URL, at a size in CSS pixels, in the light or the dark theme."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=phone,
                  deviceScaleFactor=1)  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[theme])
        # From another page, so that an address that differs in its fragment alone is loaded too.
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        url = page if isinstance(page, str) else page.absolute().as_uri()
        self.call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank'")
        self.wait("document.readyState === 'complete'")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        self.wait_for(lambda: bool(self.value(expression)), expression)

    def wait_for(self, true: Callable[[], bool], told: str = "what was waited for") -> None:
        """Wait until something is true."""
        until = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > until:
                raise RuntimeError(f"never true: {told}")
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page, also of a promise."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["text"])
        return found["result"].get("value")

    def type(self, text: str) -> None:
        """Type text into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key, by its name in the DOM."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        given: dict[str, Any] = {
            "key": key,
            "code": key if len(key) > 1 else "",
            "windowsVirtualKeyCode": KEYS.get(key, 0),
            "modifiers": 8 if shift else 0,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file for an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def roles(self) -> list[tuple[str, str]]:
        """Return role and name of each node that assistive technology is shown."""
        self.call("Accessibility.enable")
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "").strip())
            for node in self.call("Accessibility.getFullAXTree")["nodes"]
            if not node.get("ignored")
        ]

    def picture(self, target: Path) -> None:
        """Write a picture of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(found["data"]))

    def said(self) -> list[str]:
        """Return what the browser complained of since the page was opened, scripts included."""
        self.value("0")  # what was said until now is read
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Log.entryAdded":
                found.append(str(params["entry"]["text"]))
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
        return found

    def asked_for(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [
            str(event["params"]["request"]["url"])
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; end it afterwards."""
    name = chromium()
    assert name is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        into, given = os.pipe()
        told, out = os.pipe()

        def place() -> None:
            # Descriptors could be 3 or 4 already: move them out of the way first.
            one, two = os.dup(into), os.dup(out)
            os.dup2(one, 3)
            os.dup2(two, 4)

        child = subprocess.Popen(
            [name, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(into)
        os.close(out)
        try:
            yield Browser(given, told)
        finally:
            child.terminate()
            child.wait(timeout=20)
            os.close(given)
            os.close(told)
