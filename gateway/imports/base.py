"""What a converted configuration is, and how one is put together.

The promise of every converter here: nothing is silent.  Each key of the original either holds as it did, or stands in
`notes` with its line and what to do about it.  No secret is copied: where one stands in the original, a variable stands
in the result.  `text` passes `tollgate check` once `variables` are set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from gateway.document import Document, Path, Problem, dotted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}")
"""What a model may be called; see gateway.configuration.quantities."""
EXAMPLES = {
    "redis": "redis://example:6379",
    "url": "https://api.example.com",
    "secret": "a-secret-to-be-set",
    "number": "6379",
    "word": "example",
}
"""What a variable may hold, by its kind: so that a result can be checked before they are set."""


class _Plain(yaml.SafeDumper):
    """Writes what is used twice twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - as yaml calls it
        return True


class NotConvertible(Exception):
    """There is nothing here to convert; the message says why."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A configuration of ours, and what whoever takes it should know."""

    text: str
    notes: tuple[Problem, ...]  # in the order of the original's lines
    variables: Mapping[str, str]  # to be set: name to what it holds, in words


@dataclass(slots=True)
class Draft:
    """A configuration of ours in the making."""

    document: Document
    sections: dict[str, Any] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)
    variables: dict[str, tuple[str, str]] = field(default_factory=dict)  # name to kind and what it is for
    _literals: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)  # a secret's place to its variable

    def note(self, path: Path, message: str) -> None:
        """Something about the value at `path` that its owner should know."""
        note = Problem(self.document.name, self.document.line(path), dotted(path), message)
        if note not in self.notes:
            self.notes.append(note)

    def variable(self, name: str, kind: str, what: str) -> str:
        """A reference to the environment variable."""
        self.variables.setdefault(name, (kind, what))
        return f"${{{name}}}"

    def replaced(self, literal: str, stem: str, kind: str, what: str) -> str:
        """A reference in place of a secret that stood in clear: STEM_1, STEM_2 ..., a name for each different one."""
        name = self._literals.get((stem, literal))
        if name is None:
            name = f"{stem}_{1 + sum(known == stem for known, _ in self._literals)}"
            self._literals[stem, literal] = name
        return self.variable(name, kind, what)

    def examples(self) -> dict[str, str]:
        """An environment under which the result can be checked; secrets differ, as they must."""
        return {
            name: f"{EXAMPLES[kind]}-{number}" if kind == "secret" else EXAMPLES[kind]
            for number, (name, (kind, _)) in enumerate(self.variables.items())
        }

    def text(self, heading: str = "") -> str:
        """As YAML; empty sections are left out."""
        held = {name: value for name, value in self.sections.items() if value not in ({}, [], None)}
        return heading + "\n".join(_written(name, value) for name, value in held.items())

    def converted(self, heading: str) -> Converted:
        """What was made of it."""
        notes = sorted(self.notes, key=lambda note: note.line)
        return Converted(self.text(heading), tuple(notes), {name: what for name, (_, what) in self.variables.items()})


@dataclass(slots=True)
class Section:
    """A mapping of the original that knows which of its keys nobody has read yet."""

    draft: Draft
    path: Path
    value: Mapping[str, Any]
    _read: set[str] = field(default_factory=set)
    _inner: dict[str, Section] = field(default_factory=dict)

    @classmethod
    def of(cls, draft: Draft, path: Path, value: object) -> Section:
        """What is no mapping is noted and counts as an empty one."""
        if value is not None and not isinstance(value, dict):
            draft.note(path, "is not a mapping; left out")
        return cls(draft, path, value if isinstance(value, dict) else {})

    def __contains__(self, name: str) -> bool:
        return self.value.get(name) is not None

    def take(self, name: str) -> Any:  # noqa: ANN401 - whatever stands there
        """The value under `name`, which now counts as read; None if there is none."""
        self._read.add(name)
        return self.value.get(name)

    def section(self, name: str) -> Section:
        """The mapping under `name`; the same one whenever it is asked for."""
        if name not in self._inner:
            self._inner[name] = Section.of(self.draft, (*self.path, name), self.take(name))
        return self._inner[name]

    def entries(self, name: str) -> list[Section]:
        """The list of mappings under `name`."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.note(name, "is not a list; left out")
        items = value if isinstance(value, list) else []
        return [Section.of(self.draft, (*self.path, name, index), item) for index, item in enumerate(items)]

    def names(self, name: str) -> list[str]:
        """The list of names under `name`; one name may stand for a list of it."""
        value = self.take(name)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if strange := [item for item in listed if not isinstance(item, str)]:
            self.note(name, f"{len(strange)} of its entries is no name; left out")
        return [item for item in listed if isinstance(item, str)]

    def number(self, name: str) -> Decimal | None:
        """The number under `name`, 0 or more."""
        value = self.take(name)
        if value is None:
            return None
        try:
            number = None if isinstance(value, bool) else Decimal(str(value))
        except InvalidOperation:
            number = None
        if number is None or not number.is_finite() or number < 0:
            self.note(name, "is not a number of 0 or more; left out")
            return None
        return number

    def count(self, name: str) -> int | None:
        """The whole number under `name`, 1 or more."""
        number = self.number(name)
        if number is None or not 1 <= number <= 2**53:
            if number is not None:
                self.note(name, "is not a whole number of 1 or more; left out")
            return None
        return int(number)

    def flag(self, name: str) -> bool:
        """Whether `name` is on."""
        return self.take(name) in (True, "true", "True")

    def note(self, name: str, message: str) -> None:
        """About the value under `name`, if there is one; it counts as read."""
        if name in self:
            self.take(name)
            self.draft.note((*self.path, name), message)

    def unread(self) -> Iterator[str]:
        """The keys nobody asked for."""
        return (name for name in self.value if name not in self._read)

    def close(self, what: str = "is not known to this converter; left out") -> None:
        """Notes every key that was not read: nothing is silent."""
        for name in list(self.unread()):
            if self.value[name] not in (None, [], {}, ""):
                self.draft.note((*self.path, name), what)


def plain(amount: Decimal) -> int | float:
    """A number as YAML writes it."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _written(name: str, value: object) -> str:
    style = None if isinstance(value, dict | list) else False  # the innermost mappings and lists on one line
    return yaml.dump(
        {name: value}, Dumper=_Plain, sort_keys=False, width=116, allow_unicode=True, default_flow_style=style
    )
