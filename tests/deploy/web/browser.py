"""A headless Chromium driven through its DevTools pipe: no driver, no package, only the browser itself."""

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)
PATIENCE_S = 90.0


class Page:
    """One tab. Every method of the DevTools protocol is a call of `send`."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.buffer, self.number, self.session = b"", 0, ""
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def open(self, url: str) -> None:
        """Go to an address and wait until the page says that it is ready."""
        self.send("Page.navigate", url=url)
        self.wait("document.body?.dataset.ready === 'yes'")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        found = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(expression):
            shown = self.run("document.body?.innerText")
            assert time.monotonic() < end, f"{expression} never held; {self.problems}; the page says {shown!r}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        made = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], PATIENCE_S)
            assert ready, "the browser does not answer"
            self.buffer += os.read(self.read, 1 << 20)
        first, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict[str, Any]) -> None:
        details = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(details["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(details["entry"]["text"] + " " + details["entry"].get("url", ""))


def _moved(handle: int) -> int:
    """Return a copy of a file handle out of the way of 3 and 4."""
    copy = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(handle)
    return copy


@contextlib.contextmanager
def browser_page(program: str) -> Iterator[Page]:
    """Start a browser with a profile of its own, give a page, end it."""
    to_browser, from_us = map(_moved, os.pipe())
    from_browser, to_us = map(_moved, os.pipe())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$@" 3<&{to_browser} 4>&{to_us}'  # the browser reads 3 and writes 4
        command = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, pass_fds=(to_browser, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(to_us)
        try:
            page = Page(from_browser, from_us)
            yield page
            page.session = ""
            page.send("Browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            os.close(from_browser)
            os.close(from_us)
