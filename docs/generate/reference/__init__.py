"""The reference part of the documentation, written from the code when the site is built: it cannot be out of date."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reference import commands, configuration, endpoints, errors, metrics, policies, providers

PAGES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "reference/configuration.md": ("Configuration", configuration.page),
    "reference/commands.md": ("Commands", commands.page),
    "reference/policies.md": ("Policies and their options", policies.page),
    "reference/providers.md": ("Providers", providers.page),
    "reference/endpoints.md": ("Endpoints and the admin API", endpoints.page),
    "reference/errors.md": ("Errors", errors.page),
    "reference/metrics.md": ("Metrics", metrics.page),
}
"""Where each page is, what it is called, and who writes it."""
