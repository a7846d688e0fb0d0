"""A bundle as a static web page that a phone opens: built here, computed there, nothing sent."""

from deploy.web.server import make_server
from deploy.web.site import SiteOptions, build_site

__all__ = ["SiteOptions", "build_site", "make_server"]
