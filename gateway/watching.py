"""Which parts the application is made of: the usual ones, or those that OpenTelemetry watches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.credentials.keyring import Keyring
from gateway.pipeline import Pipeline
from gateway.planner import Planner
from gateway.upstream import TransportFor, Upstream

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Watching(Protocol):
    """Makes the parts that a request passes through."""

    def pipeline(self, *parts: Any, **options: Any) -> Pipeline:  # noqa: ANN401  # the pipeline's own
        """A Pipeline."""
        ...

    def planner(self, *parts: Any, **options: Any) -> Planner:  # noqa: ANN401  # the planner's own
        """A Planner."""
        ...

    def upstream(self, transport_for: TransportFor, keyring: Keyring) -> Upstream:
        """An Upstream."""
        ...

    def close(self) -> None:
        """Sends what is left.  May block for a while."""
        ...


class Unwatched:
    """The usual parts."""

    pipeline = Pipeline
    planner = Planner
    upstream = Upstream

    def close(self) -> None:
        """There is nothing to send."""


def watching(env: Mapping[str, str] = os.environ) -> Watching:
    """As the environment asks for it.  ImportError where it asks and the packages of tollgate[otel] are not here."""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(env.get(name) for name in ENDPOINTS):
        return Unwatched()
    from gateway.tracing import over_otlp  # noqa: PLC0415  # OpenTelemetry is imported only where it is asked for

    return over_otlp()
