"""Where Google's cloud serves models.

options:
  project: my-project
  location: global        # else us-central1, europe-west4 ..., or eu, us for all of a continent
"""

from __future__ import annotations

from gateway.types import Provider

HOST = "https://aiplatform.googleapis.com"


def is_vertex(provider: Provider) -> bool:
    """Whether a provider is a project on Google's cloud."""
    return "project" in provider.options


def address(provider: Provider) -> str:
    """What comes before /publishers or /models; a regional host unless the base URL names another."""
    base = provider.base_url.rstrip("/")
    if not is_vertex(provider):
        return base
    location = str(provider.options.get("location", "global"))
    if base.startswith(HOST) and location in ("eu", "us"):
        base = base.replace(HOST, f"https://aiplatform.{location}.rep.googleapis.com", 1)
    elif base.startswith(HOST) and location != "global":
        base = base.replace(HOST, f"https://{location}-aiplatform.googleapis.com", 1)
    return f"{base}/projects/{provider.options['project']}/locations/{location}"
