"""What follows from one version of the settings.  A reload makes a new one; requests in flight keep theirs."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.catalog import Catalog
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.tenants import Directory


@dataclass(frozen=True, slots=True)
class Site:
    """One consistent view: who may ask, for what, at which price, and the path it takes."""

    settings: Settings
    catalog: Catalog
    directory: Directory
    pipeline: Pipeline


class Sites:
    """Holds the current site.  Swapping is one assignment: a request sees the old one or the new one, never both."""

    def __init__(self, current: Site) -> None:
        self.current = current
