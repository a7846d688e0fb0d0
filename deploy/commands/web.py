"""`python -m deploy web BUNDLE --out SITE`: a static page that runs the bundle in a phone's browser."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from deploy.commands.say import say
from deploy.web import SiteOptions, build_site
from shared_peft.command import Command


@dataclass(frozen=True)
class WebConfig:
    """Options of `web`."""

    bundle: Positional[Path]
    """Folder of a bundle."""
    out: Path
    """Folder of the site to write; must not exist."""
    runtime: Path | None = None
    """Folder of an installed onnxruntime-web, such as node_modules/onnxruntime-web; none fetches it with npm."""
    title: str = ""
    """Heading of the page; none makes one of the model's name."""
    hop_s: float | None = None
    """Time from one window to the next [s], motion models only; none takes a window's length."""


def web(config: WebConfig) -> None:
    """Build a site and say what was written."""
    names = build_site(config.bundle, config.out, SiteOptions(config.runtime, config.title, config.hop_s))
    size = sum((config.out / name).stat().st_size for name in names)
    say(f"{config.out}: {len(names)} files, {size / 1e6:.1f} MB; works offline once opened")
    say(f"Try it: python -m deploy serve {config.out}")


COMMAND = Command(
    "web",
    WebConfig,
    web,
    "Build a static, offline web page that runs a bundle on a phone.",
    "python -m deploy web runs/bundle --out runs/site",
    place=60,
)
