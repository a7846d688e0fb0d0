"""JavaScript with onnxruntime-web in a headless Chromium: a page served to it alone, which posts its answer back."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deploy.wasm import TIMEOUT_S
from deploy.web.runtime import SCRIPT, WASM
from deploy.web.server import LOCALHOST, TYPES
from shared_peft.errors import ExportError, MissingPackageError

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_WHERE = "WASM in Chromium"
_FLAGS = ("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking")
_PAGE = f"""\
<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
const post = (answer) => fetch("answer", {{ method: "POST", body: JSON.stringify(answer) }});
const bytesOf = async (name) => new Uint8Array(await (await fetch("file/" + name)).arrayBuffer());
try {{
  const ort = await import("./{SCRIPT}");
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = {{ wasm: new URL("{WASM}", location).href }};
  const data = await (await fetch("data.json")).json();
  const value = await (async () => {{ BODY }})();
  await post({{ value: value ?? null }});
}} catch (error) {{
  await post({{ error: String(error) }});
}}
</script>
"""


def find_browser() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def run_in_chromium(runtime: Mapping[str, bytes], body: str, data: Any, files: Mapping[str, Path] | None = None) -> Any:
    """Run a function body of JavaScript in a page of a headless browser; as `deploy.wasm.run_in_node`.

    Raises:
        MissingPackageError: no browser is installed.
        ExportError: the body threw, or did not end.
    """
    program = find_browser()
    if program is None:
        raise MissingPackageError(_WHERE, "a browser must be installed", "none on the PATH", f"Install {NAMES[0]}")
    served = {name: runtime[name] for name in (SCRIPT, WASM)}
    served |= {"": _PAGE.replace("BODY", body).encode(), "data.json": json.dumps(data).encode()}
    paths = {f"file/{name}": path for name, path in (files or {}).items()}
    fix = "Run the bundle with another runtime, or export it again"
    with _serving(served, paths) as (address, answers), _browsing(program, address):
        try:
            answer = json.loads(answers.get(timeout=TIMEOUT_S))
        except queue.Empty as error:
            raise ExportError(_WHERE, f"must end within {TIMEOUT_S} s", "no end", fix) from error
    if "error" in answer:
        raise ExportError(_WHERE, "onnxruntime-web must answer", answer["error"][:300], fix)
    return answer["value"]


@contextlib.contextmanager
def _browsing(program: str, address: str) -> Iterator[None]:
    """Open an address in a browser with a profile of its own; end the browser afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*_FLAGS, *(("--no-sandbox",) if os.geteuid() == 0 else ()), f"--user-data-dir={profile}"]
        command = [program, *flags, address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


@contextlib.contextmanager
def _serving(served: Mapping[str, bytes], paths: Mapping[str, Path]) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """Serve bytes and files on a free port of this machine; give the address and the queue of what is posted."""
    answers: queue.Queue[bytes] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/").partition("?")[0]
            content = paths[name].read_bytes() if name in paths else served.get(name)
            self._send(404 if content is None else 200, content or b"", TYPES.get(Path(name or ".html").suffix))

        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(200, b"", None)

        def _send(self, status: int, content: bytes, kind: str | None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Say nothing."""

    with ThreadingHTTPServer((LOCALHOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{LOCALHOST}:{server.server_port}/", answers
        finally:
            server.shutdown()
            thread.join()
