"""The Lua scripts beside this file.  A change to what they keep is a new version: gateways of both run side by side."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Script:
    """A verb's text, and the name Redis knows it by."""

    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Scripts:
    """One for each verb."""

    reserve: Script
    extend: Script
    settle: Script
    book_unknown: Script
    release: Script
    expire: Script
    balances: Script
    adopt: Script
    restore: Script
    admit: Script


def _read(name: str) -> str:
    return (files(__package__) / f"{name}.{VERSION}.lua").read_text()


def _script(verb: str) -> Script:
    text = _read("book") + _read(verb)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = Scripts(**{verb: _script(verb) for verb in Scripts.__dataclass_fields__})
