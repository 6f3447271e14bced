"""Each installed policy with its options, from its class."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib.metadata import entry_points

from reference.table import code, table

INTRODUCTION = """
A route names policies in order, with their options: `policies: [{output_cap: {default: 1024}}, cheapest]`. What each is
for stands in [Policies](../policies.md); how to add one in [I want to write a policy](../guides/write-a-policy.md).
"""


def page() -> str:
    """A section for each."""
    return INTRODUCTION + "\n".join(_section(name, kind) for name, kind in policies().items())


def policies() -> dict[str, type]:
    """Every policy that is installed, by the name configurations use."""
    return {
        point.name: point.load()
        for point in sorted(entry_points(group="tollgate.policies"), key=lambda each: each.name)
    }


def _section(name: str, kind: type) -> str:
    fields = [field for field in dataclasses.fields(kind) if field.init]
    rows = [(code(field.name), code(_hint(str(field.type))), _default(field)) for field in fields]
    told = re.sub(r"^    (\S)", r"    \1", inspect.cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)
    options = table(("option", "type", "default"), rows) if rows else "It has no options."
    return f"\n## {name}\n\n{_prose(told)}\n\n{options}\n"


def _hint(text: str) -> str:
    return text.replace("NanoUSD", "int").replace("Sequence", "list").replace("Mapping", "dict").replace(" | None", "")


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return "" if field.default in (None, "", ()) else code(field.default)
    return "" if field.default_factory is not dataclasses.MISSING else "required"


def _prose(text: str) -> str:
    """A docstring with aligned option lines as paragraphs and a list."""
    out: list[str] = []
    for line in text.splitlines():
        if re.match(r"`\w+`", line) and "  " in line:
            name, _, rest = line.partition("  ")
            out.append(
                f"\n- {name}: {rest.strip()}"
                if not out or not out[-1].startswith(("- ", "\n- "))
                else f"- {name}: {rest.strip()}"
            )
        elif line.startswith("  ") and out:
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return "\n".join(out)
