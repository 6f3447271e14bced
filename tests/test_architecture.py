"""The rules of the house, kept by a test so that nobody has to remember them."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import gateway
import router_policies
from gateway import errors
from gateway.metrics import COUNTERS, NAMES

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "router_policies").rglob("*.py")])
LINES_MAX = 400
FUNCTION_LINES_MAX = 50
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "service", "misc"}
NETWORK = {"httpx", "httpx_aiohttp", "aiohttp", "requests", "urllib3"}
WEB = {"fastapi", "starlette"}
IO = {"asyncio", "socket", "subprocess", "threading", "os", "pathlib", "redis", "sqlalchemy", "psycopg", *NETWORK}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, in dotted form; a `from` also counts as what it takes."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_is_under_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_function_is_under_50_lines(path: Path) -> None:
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: length for node in functions if (length := _length(node)) >= FUNCTION_LINES_MAX}
    assert not long


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", [path for path in SOURCES if path.read_text().strip()], ids=name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree(path))


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [name(path) for path in SOURCES if NAMES_THAT_SAY_NOTHING & {*path.parts, path.stem}]


def test_every_layer_imports_only_those_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0, "run lint-imports to see which import"


def test_policies_import_nothing_of_the_gateway_but_the_nouns_and_the_plan() -> None:
    allowed = ("gateway.types", "gateway.plan", "gateway.answers")
    wrong = [
        (name(path), module)
        for path in SOURCES
        if path.is_relative_to(ROOT / "router_policies")
        for module in imported(path)
        if module.startswith("gateway") and not module.startswith(allowed)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("packages", "homes"),
    [
        (
            NETWORK,
            (
                "gateway/transport/",
                "gateway/upstream.py",
                "gateway/alerting/webhooks.py",
                "gateway/app.py",
                "gateway/simulated/",
            ),
        ),
        (WEB, ("gateway/api/", "gateway/app.py")),
    ],
    ids=["http client", "web framework"],
)
def test_a_library_that_talks_to_the_world_stays_where_it_belongs(packages: set[str], homes: tuple[str, ...]) -> None:
    wrong = [
        (name(path), module)
        for path in SOURCES
        if not name(path).startswith(homes)
        for module in imported(path)
        if module.split(".")[0] in packages
    ]
    assert not wrong


def test_what_is_pure_does_no_input_or_output() -> None:
    pure = ("gateway/dialects/", "gateway/plan.py", "gateway/usage", "gateway/money.py", "gateway/sse.py")
    pure += ("gateway/explain.py", "gateway/types.py", "gateway/errors.py", "gateway/conversation.py")
    wrong = [
        (name(path), module)
        for path in SOURCES
        if name(path).startswith(pure) or path.parent.name == "router_policies"  # not what trains a policy
        for module in imported(path)
        if module.split(".")[0] in IO
    ]
    assert not wrong


RUNS_TEXT = {"eval", "exec", "compile", "__import__", "importlib.import_module", "os.system", "os.popen"}
READS_CODE = {"pickle", "marshal", "shelve", "dill", "jinja2", "mako", "code", "runpy"}
UNSAFE = {"shell=True", "allow_pickle=True"}
STARTS_PROGRAMS = ("gateway/credentials/secret.py",)  # the command that an operator's file names


def test_no_text_is_run_as_code_and_only_an_operators_command_starts_a_program() -> None:
    wrong = []
    for path in [path for path in SOURCES if not name(path).startswith("gateway/sql/migrations/")]:
        modules = READS_CODE if name(path) in STARTS_PROGRAMS else {"subprocess", *READS_CODE}
        wrong += [(name(path), module) for module in imported(path) if module.split(".")[0] in modules]
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        wrong += [(name(path), called) for node in calls if (called := ast.unparse(node.func)) in RUNS_TEXT]
        options = {word for node in calls for each in node.keywords if (word := ast.unparse(each)) in UNSAFE}
        wrong += [(name(path), word) for word in options]
    assert not wrong


# The tree of errors that gateway.errors draws, and the classes it has.

DRAWN = re.compile(
    r"^(?P<indent>[| `-]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3})(?:\.\.)?(?: +(?P<code>[a-z_]+))?)?", re.MULTILINE
)


def drawn() -> dict[str, re.Match[str]]:
    picture = (errors.__doc__ or "").split("\n\n", 1)[1]
    return {match["name"]: match for match in DRAWN.finditer(picture)}


def classes() -> dict[str, type[errors.GatewayError]]:
    def below(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    return {kind.__name__: kind for kind in below(errors.GatewayError)}


def test_the_drawn_tree_of_errors_has_every_error_and_no_other() -> None:
    for package in (gateway, router_policies):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and ".migrations." not in module.name:
                importlib.import_module(module.name)
    assert {kind: found.__module__ for kind, found in classes().items()} == dict.fromkeys(drawn(), "gateway.errors")


@pytest.mark.parametrize("kind", sorted(drawn()))
def test_an_error_has_the_status_and_code_that_are_drawn(kind: str) -> None:
    line, error = drawn()[kind], classes()[kind]
    if line["code"] is None:
        assert error.__subclasses__() or kind == "GatewayError", "a leaf is drawn with its status and code"
        return
    assert (error.status, error.code) == (int(line["status"]), line["code"])


@pytest.mark.parametrize("kind", sorted(drawn()))
def test_an_error_hangs_where_it_is_drawn(kind: str) -> None:
    names = list(drawn())
    depth = len(drawn()[kind]["indent"])
    above = [other for other in names[: names.index(kind)] if len(drawn()[other]["indent"]) < depth]
    assert not above or issubclass(classes()[kind], classes()[above[-1]])


def test_no_two_errors_share_a_code_by_accident() -> None:
    leaves = [kind for kind in classes().values() if drawn()[kind.__name__]["code"]]
    codes = [kind.code for kind in leaves]
    assert sorted(set(codes)) == sorted(codes)


# Metrics are a public contract.

METRIC = re.compile(r"\btollgate_[a-z0-9_]+\b")
SERIES = re.compile(r"_(bucket|count|sum|created)$")


def test_every_metric_named_anywhere_is_declared() -> None:
    named: dict[str, str] = {}
    for path in [path for path in SOURCES if name(path) != "gateway/metrics.py"]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
                named[node.value] = name(path)
    for suffix in ("json", "yml", "yaml"):
        for path in [*(ROOT / "config").rglob(f"*.{suffix}"), *(ROOT / "helm").rglob(f"*.{suffix}")]:
            named |= dict.fromkeys(METRIC.findall(path.read_text()), name(path))
    assert not {metric: where for metric, where in named.items() if not {metric, SERIES.sub("", metric)} & NAMES}


def test_every_counter_is_counted_by_somebody() -> None:
    """A name that nothing counts reads as a thing that never happens."""
    metrics = ROOT / "gateway/metrics.py"
    methods = [node for node in ast.walk(tree(metrics)) if isinstance(node, ast.FunctionDef)]
    calls = {
        node.attr
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and (path != metrics or node.attr.startswith("_"))
    }
    counted = {text for method in methods if method.name in calls for text in _texts(method.body)}
    assert COUNTERS.keys() - counted == set()


def _texts(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
