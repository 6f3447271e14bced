"""How long reports take over a month of many records, on a real PostgreSQL.

    python -m bench.reports --url postgresql://127.0.0.1:5432/postgres --records 10000000 [--steps load,roll,ask,drop]

`load` makes a schema of its own and fills it inside the database, `roll` sums it up as the gateway's own task does,
`ask` prints what each grouping took (the best of three) and whether all of its groups add up, `drop` takes the schema
away.  Ten million records take some 10 GB.  It ends with 1 if a grouping took longer than `--within` seconds.
"""

from __future__ import annotations

import argparse
import sys
import time

from sqlalchemy import Connection, Engine, text

from gateway.sql import by_day
from gateway.sql.database import engine
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter
from gateway.sql.rollup import due, renew
from gateway.sql.schema import records
from gateway.sql.spend import GROUPS_MAX, Sum, spend

SCHEMA = "tollgate_bench_reports"
DAYS = 30
START = 1_793_491_200  # 2026-11-01, a Sunday
GROUPINGS = (
    *("tenant", "key", "user", "model", "route", "deployment", "provider", "upstream_model", "task", "endpoint"),
    *("outcome", "day", "hour", "tag:team", "tag:feature", "tag:cost_center", "tag:customer", "tenant,model,day"),
    *("tenant,user", "task,tenant", "user,day", "tenant,hour"),
)
FILL = """
INSERT INTO records (id, version, at, hour, tenant, key, endpoint, model, route, deployment, provider, upstream_model,
  response_model, outcome, stream, "user", task, tags, tokens, fees, input_tokens, cached_tokens, output_tokens,
  estimated, cost, components, calculated_cost, service_tier, baseline_cost, overhead_cost, reserved, status, error,
  finish_reason, attempts, latency_ms, first_token_ms, tokens_estimated, reasons, flags)
SELECT 'req_' || lpad(to_hex(n), 12, '0') || substr(md5(n::text), 1, 18), 1, at, floor(at / 3600), tenant,
  tenant || '_k' || key, 'chat', 'auto', 'auto', 'd' || deployment, 'p' || deployment % 4, 'model-' || deployment,
  'model-' || deployment, CASE WHEN n % 100 = 0 THEN 'upstream_error' ELSE 'ok' END, n % 2 = 0,
  CASE WHEN who % 10 = 0 THEN '' ELSE 'user' || who END,
  CASE WHEN who % 3 = 0 THEN '' ELSE 'task' || n / 10 END,
  jsonb_build_object('team', 'team' || n % 10, 'feature', 'feature' || n % 20, 'customer', 'c' || who % 5000)
    || CASE WHEN n % 2 = 0 THEN jsonb_build_object('cost_center', 'cc' || n % 30) ELSE '{}' END,
  jsonb_build_object('input', input, 'cache_read', cached, 'output', output), '{}', input + cached, cached, output,
  n % 50 = 0, cost, jsonb_build_object('input', cost / 2, 'output', cost - cost / 2), cost, '', cost * 3, 0, cost * 2,
  200, CASE WHEN n % 100 = 0 THEN 'upstream_timeout' ELSE '' END, 'stop', 1, 900, 200, input, 'cheapest', '[]'
FROM (
  SELECT n, :start + (n - :first) * 86400.0 / CAST(:count AS bigint) + random() AS at,
    abs(hashint8(n / 10)) % 10000 AS who, 'tenant' || abs(hashint8(n / 10)) % 50 AS tenant,
    abs(hashint8(n / 10)) % 4 AS key, n % 12 AS deployment,
    (random() * 4000)::bigint AS input, (random() * 2000)::bigint AS cached,
    (random() * 500)::bigint AS output, (random() * 5000000)::bigint AS cost
  FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + CAST(:count AS bigint) - 1) AS n
) AS drawn
"""


def load(made: Engine, count: int) -> None:
    """So many records over a month, and the marks that say that nothing is summed up yet."""
    each = count // DAYS
    with made.begin() as connection:
        for index in records.indexes:
            index.drop(connection)
    for day in range(DAYS):
        with made.begin() as connection:
            given = {"first": day * each + 1, "count": each, "start": START + day * 86400}
            connection.execute(text(FILL), given)
        print(f"day {day + 1} of {DAYS}: {(day + 1) * each:,} records", flush=True)
    with made.begin() as connection:
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        for index in records.indexes:
            index.create(connection)
        connection.execute(text("INSERT INTO stale_hours (hour) SELECT DISTINCT hour FROM records"))
        connection.execute(text("INSERT INTO stale_days (day) SELECT DISTINCT hour / 24 FROM records"))
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE records"))


def roll(made: Engine) -> None:
    """As `gateway.sql.rollup.keep` does."""
    began = time.perf_counter()
    with made.connect() as connection:
        hours = due(connection, START + 40 * 86400.0, 10_000)
    for hour in hours:
        with made.begin() as connection:
            renew(connection, hour)
    print(f"{len(hours)} hours summed in {time.perf_counter() - began:.1f} s", flush=True)
    began = time.perf_counter()
    with made.connect() as connection:
        days = by_day.due(connection, START + 40 * 86400.0, DAYS + 1)
    for day in days:
        with made.begin() as connection:
            by_day.renew(connection, day)
    print(f"{len(days)} days summed in {time.perf_counter() - began:.1f} s")
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE hourly, daily"))


def ask(made: Engine) -> float:
    """Every grouping, as a report of the admin API asks for it; what the slowest took."""
    wanted, slowest = Filter(since=START, until=START + DAYS * 86400), 0.0
    with made.connect() as connection:
        whole = spend(connection, wanted, ())[0]
        print(f"{whole.requests:,} requests, {whole.cost:,} nano-dollars")
        for grouping in GROUPINGS:
            by = tuple(grouping.split(","))
            took, found = min((timed(connection, wanted, by) for _ in range(3)), key=lambda each: each[0])
            assert len(found) == GROUPS_MAX or sum(each.cost for each in found) == whole.cost, grouping
            print(f"{grouping:16} {len(found):6,} groups shown {took:7.3f} s", flush=True)
            slowest = max(slowest, took)
    return slowest


def timed(connection: Connection, wanted: Filter, by: tuple[str, ...]) -> tuple[float, list[Sum]]:
    """Seconds, and the groups."""
    began = time.perf_counter()
    found = spend(connection, wanted, by)
    return time.perf_counter() - began, found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", default="postgresql://127.0.0.1:5432/postgres")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--steps", default="load,roll,ask,drop")
    parser.add_argument("--within", type=float, default=2.0)
    given = parser.parse_args()
    steps = given.steps.split(",")
    if "load" in steps:
        with engine(given.url, 1).begin() as connection:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    own = f"{given.url}{'&' if '?' in given.url else '?'}options=-csearch_path%3D{SCHEMA}"
    upgrade(own)
    made = engine(own, 1)
    if "load" in steps:
        load(made, given.records)
    if "roll" in steps:
        roll(made)
    slowest = ask(made) if "ask" in steps else 0.0
    if "drop" in steps:
        with made.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
    made.dispose()
    if slowest > given.within:
        sys.exit(f"the slowest took {slowest:.1f} s, more than {given.within} s")


if __name__ == "__main__":
    main()
