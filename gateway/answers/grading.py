"""What a model is asked that grades an answer, and what its reply says."""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec.structs import replace

from gateway.plan import Said
from gateway.types import Format, Request

SHOWN_CHARS = 12_000
"""Of the request and of each answer: the last of one, the first of the others."""
ALONE = (
    "You grade answers. Read the request and the answer. Reply with one whole number from 0 to 100 and nothing else: "
    "how likely it is that the answer is correct and complete."
)
BESIDE = (
    "You grade answers. Read the request, the reference and the answer. Reply with one whole number from 0 to 100 and "
    "nothing else: how likely it is that the answer is at least as correct and complete as the reference."
)
SCORE = re.compile(r"\b(100|\d{1,2})\b")


def question(request: Request, answer: Said, reference: Said | None = None, **more: Any) -> Request:  # noqa: ANN401
    """A request in chat format that asks what the answer is worth; `more`: fields of its body."""
    asked = json.dumps([request.body.get(name) for name in ("instructions", "system", "messages", "input")])
    parts = [f"<request>\n{asked[-SHOWN_CHARS:]}\n</request>"]
    if reference is not None:
        parts.append(f"<reference>\n{_shown(reference)}\n</reference>")
    parts.append(f"<answer>\n{_shown(answer)}\n</answer>")
    instructions = ALONE if reference is None else BESIDE
    messages = [{"role": "system", "content": instructions}, {"role": "user", "content": "\n".join(parts)}]
    body = {"model": request.model, "messages": messages, **more}
    plain = replace(request, format=Format.CHAT, stream=False, headers={})
    return replace(plain, body=body, raw=json.dumps(body).encode())


def grade(text: str) -> float | None:
    """The grade in a reply, 0 to 1; None where there is none."""
    found = SCORE.findall(text)
    return int(found[-1]) / 100 if found else None


def _shown(said: Said) -> str:
    return json.dumps(said.text or said.calls)[:SHOWN_CHARS]
