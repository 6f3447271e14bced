"""Fixtures every suite may use."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from schemathesis.pytest.plugin import SchemathesisFunction
from sqlalchemy.engine import make_url
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from gateway.sql import tenants
from gateway.sql.migrate import upgrade

pytest_plugins = ["services"]

settings.register_profile("tollgate", deadline=None)  # a busy machine is not what the properties are about
settings.load_profile("tollgate")
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback
"""With every variable, as a log that nobody configured tells it, an error takes as long as a hundred requests."""


class OneForProcesses(LoadScopeScheduling):
    """Of several workers one has all tests that start processes of their own; of the others each has files whole."""

    def _split_scope(self, nodeid: str) -> str:
        return "system" if nodeid.startswith("tests/system/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneForProcesses:
    """See xdist."""
    return OneForProcesses(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each operation of a schema an id of its own: of several tests with the same id xdist runs one."""
    for item in items:
        if isinstance(item, SchemathesisFunction):
            item._id = item._id.with_params(item.name.partition("[")[2].removesuffix("]"))
    if len({item.nodeid for item in items}) < len(items):
        raise pytest.UsageError("two tests have the same id")


def pytest_collection_finish() -> None:
    """What was collected stays: half a million objects that the garbage collector need not look through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new SQLite file is a copy of one that is migrated already: a dozen revisions take longer than most tests.

    The tests of the migrations call `upgrade` themselves; gateways that are processes of their own do so too.
    """
    template = tmp_path_factory.mktemp("migrated") / "tollgate.db"
    upgrade(f"sqlite:///{template}")

    def copied(url: str) -> None:
        name = make_url(url).database
        if url.startswith("sqlite:///") and name and name != ":memory:" and not Path(name).exists():
            shutil.copyfile(template, name)
        else:
            upgrade(url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenants, "upgrade", copied)
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Who listens to the log leaves it configured, and the requests of every later test would write to it."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
