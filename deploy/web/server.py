"""A local web server for a site: the types and headers a static host should send."""

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from deploy.web.site import SETTINGS
from shared_peft.errors import ExportError

LOCALHOST = "127.0.0.1"  # browsers give sensors and camera to https and to this machine's own address only
POLICY = (  # as in index.html, for hosts that send no headers; WebAssembly is compiled, text is never run
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",  # a meta element cannot say the last one
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "accelerometer=(self), gyroscope=(self), camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class SiteHandler(SimpleHTTPRequestHandler):
    """Serves files with HEADERS and TYPES, and keeps quiet."""

    extensions_map: ClassVar[dict[str, str]] = {"": "application/octet-stream", **TYPES}

    def end_headers(self) -> None:
        """Send the site's headers with every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Say nothing."""


def make_server(site: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a site on this machine's own address; `serve_forever` starts it.

    Args:
        site: a folder `build_site` wrote.
        port: 0 chooses a free one.

    Raises:
        ExportError: no site there, or the port cannot be had.
    """
    if not (site / SETTINGS).is_file():
        raise ExportError(
            site, f"must be a site with {SETTINGS}", "none there", "Build it: python -m deploy web BUNDLE"
        )
    try:
        return ThreadingHTTPServer((LOCALHOST, port), functools.partial(SiteHandler, directory=str(site)))
    except (OSError, OverflowError) as error:
        raise ExportError("--port", "must be free, from 0 to 65535", f"{port} ({error})", "Choose another") from error
