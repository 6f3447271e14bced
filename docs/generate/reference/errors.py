"""Every error a client can see, from the drawn tree and its classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from gateway import errors
from gateway.errors import GatewayError
from reference.table import code, table

INTRODUCTION = """
Errors are OpenAI's, `{"error": {"message", "type", "param", "code"}}`, and Anthropic's on `/v1/messages`. Go by `code`:
it stays. `x-should-retry` says whether the same request may work later, and SDKs keep to it.
"""


def page() -> str:
    """A row for each leaf that has a code of its own."""
    drawn = dict(
        re.findall(r"[|`]- (\w+) +(?:\d{3}|400\.\.)[^\S\n]+\w+[^\S\n]{2,}(\S.*)$", errors.__doc__ or "", re.MULTILINE)
    )
    rows = [
        (str(kind.status), code(kind.code), "yes" if kind.retryable else "no", drawn.get(kind.__name__) or _said(kind))
        for kind in kinds()
    ]
    return INTRODUCTION + "\n" + table(("status", "code", "try again", "when"), rows)


def kinds() -> list[type[GatewayError]]:
    """What is raised, one for each code: the leaf of the tree rather than its parent."""
    by_code = {kind.code: kind for kind in sorted(_below(GatewayError), key=lambda kind: len(kind.__mro__))}
    return sorted(by_code.values(), key=lambda kind: (kind.status, kind.code))


def _below(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for each in kind.__subclasses__():
        if each.__module__.startswith("gateway."):
            yield each
            yield from _below(each)


def _said(kind: type[GatewayError]) -> str:
    own = vars(kind).get("__doc__")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    return inspect.cleandoc(own).partition("\n")[0] if own else words
