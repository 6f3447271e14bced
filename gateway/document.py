"""A YAML text as plain values that remember their lines, with `${ENV}` filled in.

In any string value `${NAME}` stands for the environment variable, `${NAME:-text}` for it or else the text,
`${NAME:+text}` for the text if it is set, and `$${` for a literal `${`.  A variable that is empty counts as unset.  A
filled-in value stays a string, so a key made of digits keeps its zeros; an unquoted one that comes out empty is null.
"""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys and indexes from the top."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:[-+])([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with its place and what would be right."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.key}: {self.message}"
            if self.key
            else f"{self.file}:{self.line}: {self.message}"
        )


class SettingsError(Exception):
    """Everything that is wrong with a configuration, in the order of its lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(slots=True)
class Document:
    """The values of one file, where each came from, and what is wrong so far."""

    name: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unset: dict[Path, str] = field(default_factory=dict)  # variables that a value needs and the environment lacks

    def line(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str) -> None:
        """Notes that the value at `path` is wrong."""
        self.problems.append(Problem(self.name, self.line(path), dotted(path), message))

    def check(self) -> None:
        """Raises SettingsError if anything is wrong, unset variables included."""
        for path, variable in self.unset.items():
            self.problem(path, f"environment variable {variable} is not set; set it, or write ${{{variable}:-default}}")
        self.unset.clear()
        if self.problems:
            raise SettingsError(self.problems)


def text_of(path: pathlib.Path) -> str:
    """What the file says.  Raises SettingsError where it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingsError([Problem(str(path), 1, "", f"cannot be read: {reason}")]) from error


def read(text: str, env: Mapping[str, str], name: str) -> Document:
    """Reads `text`.  What is wrong is in the document's `problems`; text that is no YAML raises SettingsError."""
    document = Document(name)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.value = _Reader(document, loader, env).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        hint = "; put ${...} in quotes inside {} and []" if "${" in _line(text, line) else ""
        raise SettingsError([Problem(name, line, "", f"not YAML: {error.problem or error.context}{hint}")]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError([Problem(name, 1, "", f"not YAML: {error}")]) from error
    finally:
        loader.dispose()
    return document


def _line(text: str, number: int) -> str:
    return next(iter(text.splitlines()[number - 1 : number]), "")


def dotted(path: Path) -> str:
    """A path as people write it: deployments[0].price.input."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name is near, else `; known: ...`."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


@dataclass(slots=True)
class _Reader:
    document: Document
    loader: yaml.SafeLoader
    env: Mapping[str, str]

    def value(self, node: yaml.Node, path: Path) -> object:
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        value = self.loader.construct_object(node)
        if isinstance(value, str) and "${" in value:
            return self.filled(value, path, plain=getattr(node, "style", None) is None)
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen:
                where = Problem(
                    self.document.name,
                    line,
                    dotted((*path, name)),
                    f"is given twice, first in line {seen[name]}; keep one",
                )
                self.document.problems.append(where)
            seen.setdefault(name, line)
        self.loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key, item in node.value:
            name = str(key.value)
            self.document.lines[(*path, name)] = key.start_mark.line + 1
            values[name] = self.value(item, (*path, name))
        return values

    def filled(self, text: str, path: Path, *, plain: bool) -> str | None:
        def fill(match: re.Match[str]) -> str:
            variable, operator, word = match.groups()
            if variable is None:
                return "${"
            found = self.env.get(variable, "")
            if operator == ":+":
                return word if found else ""
            if found or operator == ":-":
                return found or word
            self.document.unset[path] = variable
            return ""

        result = _REFERENCE.sub(fill, text)
        return None if plain and not result else result
