"""What a response object says of its usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from gateway import usage
from gateway.types import Provider, Usage

_FEES: Mapping[str, str] = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",  # billed by the tokens of another model, which no usage tells
}
_OLDER_SEARCH = "web_search_preview"
"""A tool whose calls have a price of their own."""
_UNBILLED = frozenset({"open_page", "find_in_page", "find"})
"""What a search call may also do: only searching is billed."""


def metered(response: Mapping[str, Any], provider: Provider) -> Usage | None:
    """The usage it reports, with a fee for each call of the provider's own tools; None where it reports none.

    xAI counts those calls in the usage itself, with its own names; elsewhere they are counted among the output items.
    """
    tier = response.get("service_tier", "")
    found = usage.read(usage.RESPONSES, response.get("usage"), provider.options.get("usage", {}), tier)
    if found is None:
        return None
    output = response.get("output")
    fees = dict(found.fees)
    searches = _OLDER_SEARCH if _offers(response.get("tools"), _OLDER_SEARCH) else _FEES["web_search_call"]
    for called in _called(output if isinstance(output, list) else ()):
        fee = searches if called == _FEES["web_search_call"] else called
        if called not in found.fees:
            fees[fee] = fees.get(fee, 0) + 1
    return found if fees == found.fees else replace(found, fees=fees)


def _offers(tools: object, name: str) -> bool:
    """Whether one of the tools is of this type, of whichever date."""
    known = tools if isinstance(tools, list) else ()
    return any(isinstance(tool, Mapping) and str(tool.get("type")).startswith(name) for tool in known)


def _called(output: Sequence[Any]) -> Iterator[str]:
    for item in output:
        if not isinstance(item, Mapping) or (fee := _FEES.get(str(item.get("type")))) is None:
            continue
        action = item.get("action")
        if not isinstance(action, Mapping) or str(action.get("type")) not in _UNBILLED:
            yield fee
