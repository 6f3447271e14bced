"""The composition root: makes each part once and hands it on.  Nothing else knows how the gateway is put together."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog

from gateway import catalog, plugins, settings
from gateway.accounts import in_force, shared_lines
from gateway.alerting.watchman import Watchman
from gateway.alerting.webhooks import Webhooks
from gateway.api.batches import BatchesEndpoint, refused
from gateway.api.chat import COUNTED, GENERATED, CountTokens, Generate
from gateway.api.files import FilesEndpoint
from gateway.api.front import Endpoint, Front
from gateway.api.guard import Guarded
from gateway.api.health import Health as Probes
from gateway.api.models import Models
from gateway.api.once import Once
from gateway.api.openapi import Described
from gateway.api.reply import ASGISend, Receive, last
from gateway.api.responses import StoredResponses
from gateway.api.stored import Kept
from gateway.background import Background
from gateway.batches.intake import Intake
from gateway.batches.nouns import KIND as BATCH
from gateway.batches.work import work_of
from gateway.chores import Chore, Chores
from gateway.credentials.keyring import Keyring
from gateway.doctor.watch import Doctor
from gateway.errors import LedgerUnavailable
from gateway.health import Health
from gateway.hearsay import Hearsay
from gateway.jobs.answers import answer_of
from gateway.jobs.runner import Kinds, Runner
from gateway.jobs.unfinished import KIND as ANSWER
from gateway.learning.lessons import Lessons
from gateway.ledger.base import Ledger, Line
from gateway.ledger.open import open_ledger
from gateway.ledger.redis import RedisLedger
from gateway.metrics import Metrics
from gateway.pipeline import Parts
from gateway.rebuild import Rebuild
from gateway.recorder import Recorder
from gateway.settings import Settings, SettingsError
from gateway.settlements import Settlements
from gateway.shadows.beside import Shadows
from gateway.simulated import SimulatedTransport
from gateway.site import Site, Sites
from gateway.sql import rollup
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.files import Files
from gateway.sql.jobs import Jobs
from gateway.sql.nouns import Snapshot
from gateway.sql.outcomes import Turnout, store
from gateway.sql.replies import Replies
from gateway.sql.tenants import Store
from gateway.tenants import Directory
from gateway.tokens import Counter
from gateway.transport.base import Transport
from gateway.types import Limit, Provider
from gateway.upstream import TransportFor, real_transport
from gateway.watching import Watching, watching
from router_policies.difficulty.text import kept_of

log = structlog.get_logger()

WATCH_S = 0.5
"""How often the settings file and the admin's changes are looked at: a suspension holds everywhere within a second."""
EXPIRE_S = 2.0
DRAIN_S = 10.0
SHADOWS_S = 2.0
"""What nobody waits for is given up after this long."""
REBUILD_S = 10.0
"""A start waits so long for a Redis that has to be told what it has forgotten."""
COLLECT_AFTER = 10_000
"""New objects that may be in cycles before the youngest are looked at."""


def transport_for(provider: Provider) -> Transport | httpx.AsyncBaseTransport:
    """The way to a provider: the network, or the one that is inside this process."""
    return SimulatedTransport() if provider.dialect == "simulated" else real_transport(provider)


class Gateway:
    """One worker: an ASGI application with its parts, from `start` to `stop`."""

    def __init__(
        self,
        load: Callable[[], Settings],
        *,
        ledger: Ledger | None = None,
        transport: TransportFor = transport_for,
        watched: Watching | None = None,
    ) -> None:
        self._load = load
        self._given_ledger = ledger
        self._transport = transport
        self._watching = watched or watching()
        self._chores = Chores()
        self._revision = -1
        self._stored = Snapshot()
        self._front: Endpoint | None = None
        self._served = False  # by a process that does nothing else

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:
        """ASGI: HTTP to the front, the server's life cycle to `start` and `stop`."""
        if scope["type"] == "http" and self._front is not None:
            return await self._front(scope, receive, last(send) if self.probes.draining else send)
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        return None

    async def start(self) -> None:
        """Opens everything and serves.  Raises SettingsError and what the ledger or the files say."""
        found = self._load()
        self.store = Store(found.database)
        await self.store.open()
        ledger = self._given_ledger or open_ledger(found.redis, found.database, timeout_s=found.ledger.timeout_s)
        metrics = Metrics()
        recorder = Recorder(ledger, found.database, Path(found.spool), metrics, spool_bytes_max=found.spool_bytes_max)
        await recorder.start()
        keyring = Keyring(plugins.credentials, asyncio.get_running_loop().time, metrics.keyed)
        health = Health()
        self.parts = Parts(
            ledger=ledger,
            credentials=keyring,
            upstream=self._watching.upstream(self._transport, keyring),
            counter=Counter(),
            health=health,
            settlements=Settlements(ledger, recorder, remembers=_forgets(ledger)),
            recorder=recorder,
            metrics=metrics,
            shadows=Shadows(metrics, self._told),
            doctor=Doctor(metrics),
            lessons=Lessons(self.store.database, health.habits, kept_of, lambda: self.sites.current.settings.learning),
            background=Background(Jobs(self.store.database)),
        )
        await self.parts.lessons.recall()
        await self._read_stored()
        self.sites = Sites(self._site(found))
        self._front = self._endpoints(found)
        for chore in self._beside():
            self._chores.begin(chore)
        if isinstance(ledger, RedisLedger) and ledger.guarded:
            await self._remind(ledger)
        self.webhooks = Webhooks(metrics)
        self._chores.begin(self._watchman().watch)
        if found.redis is not None:
            self._chores.begin(Hearsay(found.redis, self.parts.health, asyncio.get_running_loop().time).run)
        self._on_hangup(self.reload)

    def _beside(self) -> Iterator[Chore]:
        database, parts = self.store.database, self.parts
        yield from (self._watch, self._expire, parts.settlements.retry, partial(rollup.keep, database))
        yield from (parts.doctor.watch, partial(parts.doctor.keep, database), parts.lessons.run, self.runner.run)

    def _watchman(self) -> Watchman:
        return Watchman(
            self.parts.ledger,
            self.store.database,
            self.parts.metrics,
            self.webhooks,
            wanted=lambda: self.sites.current.settings.alerts,
            shared=self._shared,
            limits=self._limits,
        )

    async def _remind(self, ledger: RedisLedger) -> None:
        """A Redis is told what it has forgotten, now and whenever it has."""
        rebuild = Rebuild(
            ledger.past,
            self.parts.settlements,
            self.store.database,
            self._limits,
            lasting=self.runner.outstanding,
            unspool=self.parts.recorder.unspool,
        )
        await rebuild.begin(REBUILD_S)
        self._chores.begin(rebuild.watch)

    async def stop(self) -> None:
        """Settles and records what is known, within a bound, and gives everything back."""
        self.probes.draining = True
        await self.once.stop(DRAIN_S)
        await self._chores.end()
        await self.webhooks.close()
        await self.parts.shadows.stop(SHADOWS_S)
        await self.parts.lessons.flush(last=True)
        await self.parts.background.stop()
        await self.parts.settlements.flush()
        await self.parts.recorder.drain(DRAIN_S)
        await self.parts.doctor.flush(self.store.database)
        self.probes.publish()
        await self.parts.upstream.close()
        self.parts.counter.close()
        await self.parts.ledger.close()
        self.store.close()
        await asyncio.to_thread(self._watching.close)

    def drain(self) -> None:
        """Says that it will stop: /readyz is off, and clients are asked to come on another connection."""
        if self._front is not None:
            self.probes.draining = True

    def reload(self) -> bool:
        """Takes new settings over, all or nothing.  False: they have an error, it was reported, and nothing changed."""
        try:
            self.sites.current = self._site(self._load())
        except SettingsError as error:
            problems = [str(problem) for problem in error.problems]
            log.error("settings not reloaded", problems=problems)  # noqa: TRY400  # the list says more than a traceback
            return False
        log.info("settings reloaded", source=self.sites.current.settings.source)
        return True

    def _site(self, found: Settings) -> Site:
        known = catalog.build(found)
        self.parts.counter.serve(known.deployments.values())
        stored = self._stored
        directory = Directory([*found.tenants, *stored.tenants], [*found.keys, *stored.keys])
        limits = in_force(found.limits, stored.limits)
        degrade = plugins.policy("budget_aware", {})
        parts, decided = self.parts, self.parts.metrics.decided
        planner = self._watching.planner(known, parts.counter, parts.health, limits, degrade, decided=decided)
        dialects = {name: plugins.dialect(name) for name in {each.dialect for each in found.providers.values()}}
        pipeline = self._watching.pipeline(self.parts, planner, dialects, limits, found.ledger.hold_s)
        return Site(found, known, directory, pipeline)

    async def _told(self, turnout: Turnout) -> None:
        """Keeps what the gateway itself found of an answer."""
        await self.store.database.run(lambda connection: store(connection, [turnout]), write=True)

    def _shared(self) -> list[Line]:
        """The limits of the few accounts that are looked at all the time."""
        site = self.sites.current
        places = site.catalog.deployments.values()
        return shared_lines(site.directory.tenants, site.pipeline.limits, places, now=time.time())

    def _limits(self) -> Iterator[tuple[Limit, str]]:
        """Every limit in force, and the tenant whose it is."""
        site = self.sites.current
        for payer in site.directory.tenants:
            yield from ((limit, payer.id) for limit in payer.limits)
        for key in site.directory.keys:
            yield from ((limit, key.tenant) for limit in key.limits)
        yield from ((limit, "") for limit in site.pipeline.limits)

    def _endpoints(self, found: Settings) -> Front:
        metrics = self.parts.metrics
        self.probes = Probes(self.sites, self.parts)
        models = Models(self.sites)
        once = self.once = Once(Replies(self.store.database))
        endpoints: dict[str, dict[str, Endpoint]] = {
            **{path: {"POST": Generate(each, self.sites, metrics, once)} for path, each in GENERATED.items()},
            **{path: {"POST": CountTokens(each, self.sites, metrics)} for path, each in COUNTED.items()},
            "/v1/models": {"GET": models},
            "/healthz": {"GET": self.probes.alive},
            "/readyz": {"GET": self.probes.ready},
            "/metrics": {"GET": self.probes.metrics},
            "/openapi.json": {"GET": Described()},
        }
        admin = Guarded(found.admin_key, self._admin)
        kept = StoredResponses(self.sites)
        asked = {"/admin/": admin, "/v1/organization/": admin}
        batches = self._batches()
        endpoints |= {prefix[:-1]: {"GET": each, "POST": each} for prefix, each in batches.items()}
        return Front(endpoints, {"/v1/models/": models, "/v1/responses/": kept, **batches, **asked})

    def _admin(self) -> Endpoint:
        from gateway.api.admin import admin_app  # noqa: PLC0415  # FastAPI, for the first who administers

        made = admin_app(self.store, self.parts.ledger, self.sites)
        if self._served:
            gc.freeze()
        return made

    def _batches(self) -> dict[str, Endpoint]:
        """Files and batches, and who follows them when nobody asks."""
        jobs, files = Jobs(self.store.database), Files(self.store.database)
        kinds: Kinds = {BATCH: work_of(jobs, files, refused), ANSWER: answer_of(jobs)}
        self.runner = Runner(self.sites, jobs, kinds, files.expire)
        served = {
            "files": FilesEndpoint(files).serve,
            "batches": BatchesEndpoint(Intake(jobs, files, self.runner)).serve,
        }
        return {f"/v1/{name}/": Kept(name, self.sites, self.parts.metrics, serve) for name, serve in served.items()}

    async def _read_stored(self) -> bool:
        """Tenants and keys made through the admin API, if they changed.  A database that is away changes nothing."""
        try:
            revision = await self.store.revision()
            if revision == self._revision:
                return False
            self._stored = await self.store.snapshot()
        except DatabaseUnavailable as error:
            log.warning("stored tenants not read", reason=str(error))
            return False
        self._revision = revision
        return True

    async def _watch(self) -> None:
        """Until cancelled: follows the settings file and the stored tenants, and shows other workers our figures."""
        seen = self._stamp()
        while True:
            await asyncio.sleep(WATCH_S)
            self.probes.publish()
            stamp = self._stamp()
            changed = await self._read_stored()
            if stamp != seen or changed or self._prices_changed():
                seen = stamp
                self.reload()

    def _prices_changed(self) -> bool:
        """Whether a listed price has begun or ended since the settings were read."""
        at = self.sites.current.settings.prices_change_at
        return at is not None and time.time() >= at

    def _stamp(self) -> tuple[int, int]:
        path = self.sites.current.settings.path
        if path is None:
            return (0, 0)
        with suppress(OSError):
            found = path.stat()
            return (found.st_mtime_ns, found.st_size)
        return (0, 0)

    async def _expire(self) -> None:
        """Until cancelled: books holds that nobody settled."""
        while True:
            await asyncio.sleep(EXPIRE_S)
            with suppress(LedgerUnavailable):
                if presumed := await self.parts.ledger.expire():
                    log.warning("holds expired, booked as presumed spend", count=presumed)

    def _on_hangup(self, act: Callable[[], object]) -> None:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread, or not on POSIX
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)

    async def _lifespan(self, receive: Receive, send: ASGISend) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        self._served = True
        _spare_the_collector()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _forgets(ledger: Ledger) -> bool:
    return isinstance(ledger, RedisLedger) and ledger.guarded


def _spare_the_collector() -> None:
    """What start-up made stays for good: looking at it again and again took a tenth of each request's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    gc.enable()


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    """The gateway between start and stop: for tests and for embedding it in another ASGI application."""
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def load_from(path: Path) -> Callable[[], Settings]:
    """Reads the file anew at every call."""
    return lambda: settings.load(path)
