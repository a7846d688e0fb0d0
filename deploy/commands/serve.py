"""`python -m deploy serve SITE`: try a site on this machine."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from deploy.commands.say import say
from deploy.web import make_server
from shared_peft.command import Command

_HTTPS = """\
Phones give motion sensors and camera to https pages only. To use it there: copy the folder to any static host with
https, or connect an Android phone by USB, run `adb reverse tcp:{port} tcp:{port}` and open the same address on it."""


@dataclass(frozen=True)
class ServeConfig:
    """Options of `serve`."""

    site: Positional[Path]
    """Folder of a site."""
    port: int = 8000
    """Port of localhost; 0 chooses a free one."""


def serve(config: ServeConfig) -> None:
    """Serve a site on localhost until interrupted."""
    with make_server(config.site, config.port) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"http://localhost:{server.server_port}  (Ctrl-C ends it)")
        say(_HTTPS.format(port=server.server_port))
        server.serve_forever()


COMMAND = Command(
    "serve",
    ServeConfig,
    serve,
    "Serve a site on localhost, and how to reach it from a phone.",
    "python -m deploy serve runs/site",
    place=61,
)
