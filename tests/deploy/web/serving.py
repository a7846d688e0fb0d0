"""A site, served while a test runs."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from deploy.web import make_server


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a site on a free port and give its address."""
    with make_server(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
