"""The requests that are sent, as JSON texts."""

from __future__ import annotations

import json
from collections.abc import Callable

EVENTS = 200
SENTENCE = "The quick brown fox, jumps over lazy dogs again. "


def _chat(model: str, characters: int, begins: str = "", **fields: object) -> str:
    text = begins + (SENTENCE * (characters // len(SENTENCE) + 1))[:characters]
    system = {"role": "system", "content": "You are a helpful assistant."}
    body = {"model": model, "messages": [system, {"role": "user", "content": text}], "max_tokens": 256, **fields}
    return json.dumps(body, separators=(",", ":"))


def long(model: str) -> str:
    """6.5 KB, some 1,400 tokens."""
    return _chat(model, 6300, temperature=0.7)


def short(model: str) -> str:
    """A question."""
    return _chat(model, 80)


def stream(model: str, *, gap_ms: int = 0, hold: bool = False) -> str:
    """A stream of two hundred events."""
    marked = "[hold] " if hold else f"[gap_ms={gap_ms}] "
    return _chat(model, 80, marked, stream=True, stream_options={"include_usage": True})


def tools(model: str) -> str:
    """32 KB of tool schemas."""
    properties = {f"field_{n}": {"type": "string", "description": SENTENCE} for n in range(16)}
    function = {"description": SENTENCE * 2, "parameters": {"type": "object", "properties": properties}}
    listed = [{"type": "function", "function": {"name": f"tool_{n}", **function}} for n in range(20)]
    return _chat(model, 80, tools=listed)


KINDS: dict[str, Callable[[str], str]] = {"long": long, "short": short, "tools": tools, "stream": stream}
