"""Fixtures every suite may use."""

pytest_plugins = ["services"]
