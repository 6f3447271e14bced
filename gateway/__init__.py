"""Tollgate: an OpenAI-compatible, cost-aware routing gateway.  Read `pipeline.py` first."""

__version__ = "0.1.0"
