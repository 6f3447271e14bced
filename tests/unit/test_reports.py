"""Statements add up, whoever carries what and however they are grouped; FOCUS is as its specification says."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from databases import a_record
from focus_rules import problems
from hypothesis import given, strategies as st
from sqlalchemy import Connection
from typer.testing import CliRunner

from gateway.cli import app
from gateway.reports import focus
from gateway.reports.charges import Charge, Terms, apportioned
from gateway.reports.statement import charged, closed, differences, month_of
from gateway.sql import by_day
from gateway.sql.database import engine
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter, row, write
from gateway.sql.rollup import renew
from gateway.sql.spend import Sum
from gateway.sql.stale import outdated
from gateway.types import NANO, Bucket, Record

MONTH = "2026-10"
START, END = month_of(MONTH)
FIGURES = len(fields(Sum)) - 3  # all but group, first and last
GROUPINGS = ((), ("tenant",), ("upstream_model",), ("tag:feature", "day"), ("user",), ("task", "key"), focus.BY)
DEAR = Terms(
    markup=Decimal("0.15"), markups={"globex": Decimal("0.333")}, shared=1_000_000_007, by_tokens=Decimal("0.7"),
    by_peak=Decimal("0.3"),
)  # fmt: skip


def october() -> list[Record]:
    return [
        a_record(
            f"r{index}",
            at=START + index * 86400 * 31 / 60,
            tenant=("acme", "globex", "initech")[index % 3],
            key=f"k_{index % 4}",
            user=f"u{index % 7}",
            task=f"t{index % 11}" if index % 2 else "",
            upstream_model=f"m{index % 2}",
            cost=None if index == 13 else 333_333_333 + index * index,
            tokens={Bucket.INPUT: 100 + index, Bucket.OUTPUT: 10},
            tags={"feature": "=cmd|x", "cost_center": str(index % 5)} if index % 3 else {},
        )
        for index in range(60)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


def filled(tmp_path: Path) -> Path:
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    made = engine(url, 1)
    with made.connect().execution_options(write=True) as connection, connection.begin():
        write(connection, [row(record) for record in october()])
    made.dispose()
    (tmp_path / "gateway.yaml").write_text(
        f"database: {url}\nproviders: {{sim: {{dialect: simulated}}}}\n"
        "deployments: [{id: small, provider: sim, upstream_model: sim-small, price: {input: 1, output: 2}}]\n"
        "tenants: [{id: acme, keys: [{name: a, key: demo-key-0123456789}]}]\n"
    )
    return tmp_path


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    made = engine(f"sqlite:///{folder}/test.db", 1)
    with made.connect().execution_options(write=True) as found, found.begin():
        yield found
    made.dispose()


def run(folder: Path, *arguments: object) -> Result:
    options = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, ["report", *options, "--config", f"{folder}/gateway.yaml"])


# Adding up


@given(amount=st.integers(-(10**15), 10**15), weights=st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_parts_are_the_whole_and_as_large_as_their_weights_ask(amount: int, weights: list[int]) -> None:
    parts = apportioned(amount, weights)
    assert sum(parts) == amount
    if whole := sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part * whole - amount * weight) < whole


@pytest.mark.parametrize("by", GROUPINGS, ids=str)
@pytest.mark.parametrize("terms", [Terms(), DEAR], ids=["showback", "chargeback"])
def test_any_grouping_adds_up_to_the_same_total(connection: Connection, by: tuple[str, ...], terms: Terms) -> None:
    found = charged(connection, Filter(since=START, until=END), by, terms)
    costs = {
        tenant: sum(r.cost or 0 for r in october() if r.tenant == tenant) for tenant in ("acme", "globex", "initech")
    }
    assert sum(each.sums.cost for each in found) == sum(costs.values())
    markups = {tenant: terms.markups.get(tenant, terms.markup) for tenant in costs}
    added = sum(int((cost * markups[tenant]).to_integral_value()) for tenant, cost in costs.items())
    assert sum(each.markup for each in found) == added
    assert sum(each.shared for each in found) == terms.shared
    assert sum(each.sums.unknown for each in found) == 1


def test_a_shared_cost_goes_by_tokens_and_by_peak_as_weighed(connection: Connection) -> None:
    records = [
        a_record("steady1", at=START, tenant="steady", tokens={Bucket.INPUT: 300}),
        a_record("steady2", at=START + 7200, tenant="steady", tokens={Bucket.INPUT: 300}),
        a_record("bursty", at=START, tenant="bursty", tokens={Bucket.INPUT: 600}),
    ]
    span = Filter(since=START, until=END)
    connection.exec_driver_sql("DELETE FROM records")
    write(connection, [row(record) for record in records])

    def carried(peak: str) -> dict[str | None, int]:
        terms = Terms(shared=900, by_tokens=1 - Decimal(peak), by_peak=Decimal(peak))
        return {each.sums.group[0]: each.shared for each in charged(connection, span, ("tenant",), terms)}

    assert carried("0") == {"steady": 450, "bursty": 450}
    assert carried("1") == {"steady": 300, "bursty": 600}
    assert carried("0.5") == {"steady": 375, "bursty": 525}


@pytest.mark.parametrize(
    "wrong", [{"by_tokens": Decimal(1), "by_peak": Decimal(1)}, {"shared": -1}, {"markup": Decimal(-1)}]
)
def test_terms_that_do_not_add_up_are_refused(wrong: dict[str, Decimal]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Terms(**wrong)  # type: ignore[arg-type]


# Forms


def test_csv_json_and_parquet_say_the_same(folder: Path) -> None:
    options = ["--month", MONTH, "--by", "tenant,tag:feature", "--markup", "15"]
    told = list(csv.DictReader(io.StringIO(run(folder, *options, "--format", "csv").stdout)))
    lines = [json.loads(line) for line in run(folder, *options, "--format", "json").stdout.splitlines()]
    assert run(folder, *options, "--format", "parquet", "--out", folder / "report.parquet").exit_code == 0
    table = pq.read_table(folder / "report.parquet").to_pylist()
    costs = [row["cost_nano_usd"] for row in lines]
    assert costs == [int(row["cost_nano_usd"]) for row in told] == [row["cost_nano_usd"] for row in table]
    assert sum(costs) == sum(record.cost or 0 for record in october())
    charges = {row["charge_usd"] for row in lines}
    assert charges == {row["charge_usd"] for row in told} == {row["charge_usd"] for row in table}


def test_a_clients_word_is_no_formula_in_a_spreadsheet(folder: Path) -> None:
    said = run(folder, "--month", MONTH, "--by", "tag:feature", "--format", "csv").stdout
    assert "'=cmd|x" in said
    assert "\n=cmd" not in said


def test_another_currency_is_the_same_money(folder: Path) -> None:
    options = ["--month", MONTH, "--by", "tenant", "--format", "json"]
    usd = [json.loads(line) for line in run(folder, *options).stdout.splitlines()]
    eur = [json.loads(line) for line in run(folder, *options, "--currency", "eur=0.92").stdout.splitlines()]
    assert [Decimal(row["charge_eur"]) for row in eur] == [Decimal(row["charge_usd"]) * Decimal("0.92") for row in usd]


WRONG = (
    "--month october",
    "--markup much",
    "--peak-weight 2",
    "--by colour",
    "--format pdf",
    "--currency EUR=x",
)


@pytest.mark.parametrize("wrong", [text.split() for text in WRONG], ids=WRONG)
def test_a_wrong_option_is_said_to_be(folder: Path, wrong: list[str]) -> None:
    result = run(folder, *wrong)
    assert result.exit_code == 1
    assert "Traceback" not in result.output


# FOCUS


def focus_rows(folder: Path) -> list[dict[str, str | None]]:
    said = run(folder, "--month", MONTH, "--format", "focus").stdout
    return [{name: value or None for name, value in line.items()} for line in csv.DictReader(io.StringIO(said))]


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str | None]]:
    return focus_rows(filled(tmp_path_factory.mktemp("focus")))


def test_a_focus_file_is_as_the_specification_says_and_adds_up(allowed: list[dict[str, str | None]]) -> None:
    found = allowed
    assert list(problems(found)) == []
    billed = sum(Decimal(row["BilledCost"] or "") for row in found)
    assert billed * NANO == sum(record.cost or 0 for record in october())
    assert sum(int(row["x_UnknownCostRequests"] or 0) for row in found) == 1
    tokens = sum(Decimal(row["ConsumedQuantity"] or "") for row in found)
    assert tokens == sum(sum(record.tokens.values()) for record in october())
    for tenant in ("acme", "globex", "initech"):
        payable = sum(Decimal(row["BilledCost"] or "") for row in found if row["InvoiceId"] == f"{MONTH} {tenant}")
        assert payable * NANO == sum(record.cost or 0 for record in october() if record.tenant == tenant)


WORDS = st.one_of(st.just(""), st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=9))


@given(
    st.lists(
        st.builds(
            Charge,
            st.builds(
                lambda group, figures: Sum(group, *figures, first=0.0, last=0.0),
                st.tuples(
                    st.just("acme"),
                    WORDS,
                    WORDS,
                    WORDS,
                    WORDS,
                    st.dates(date(2000, 1, 1), date(2100, 1, 1)).map(str),
                    WORDS,
                    st.none() | WORDS,
                    st.none(),
                ),
                st.lists(st.integers(0, 10**15), min_size=FIGURES, max_size=FIGURES),
            ),
            markup=st.integers(-(10**12), 10**12),
            shared=st.integers(0, 10**12),
        ),
        max_size=5,
    )
)
def test_whatever_is_charged_is_a_row_that_focus_allows(charged: list[Charge]) -> None:
    found = list(focus.rows(charged))
    assert [row for row in found if list(row) != list(focus.COLUMNS)] == []
    blank = [row for row in found if any(value is not None and not value.strip() for value in row.values())]
    assert list(problems(row for row in found if row not in blank)) == []
    assert sum(Decimal(row["BilledCost"] or "") for row in found) * NANO == sum(each.total for each in charged)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"BilledCost": "1,000"}, "BilledCost cannot be"),
        ({"BilledCost": "+1.0"}, "BilledCost cannot be"),
        ({"PricingQuantity": "35.2E+7"}, "PricingQuantity cannot be"),
        ({"BillingCurrency": "dollars"}, "BillingCurrency"),
        ({"ChargeCategory": "usage"}, "ChargeCategory"),
        ({"ChargeClass": "Credit"}, "ChargeClass cannot be"),
        ({"ServiceCategory": "AI"}, "ServiceCategory"),
        ({"ServiceSubcategory": "Containers"}, "must be one of its ServiceCategory"),
        ({"ChargePeriodStart": "2026-10-01"}, "ChargePeriodStart"),
        ({"ChargePeriodEnd": "2026-12-01T00:00:00Z"}, "not within"),
        ({"Tags": "feature=x"}, "Tags"),
        ({"Tags": '{"a": {"b": 1}}'}, "Tags"),
        ({"Tags": '{"a": 1, "a": 2}'}, "Tags"),
        ({"Colour": "red"}, "no column of FOCUS"),
        ({"x_colour": "red"}, "no column of FOCUS"),
        ({"ProviderName": None}, "ProviderName must not be null"),
        ({"ProviderName": " "}, "ProviderName cannot be"),
        ({"ProviderName": "openai"}, "must be 0 where a third party is paid"),
        ({"EffectiveCost": "7.0"}, "EffectiveCost must add up"),
        ({"ChargeCategory": "Credit", "ListCost": "7.0"}, "all costs of a charge that rests on no other"),
        ({"ListUnitPrice": "2.0"}, "ListUnitPrice times"),
        ({"ContractedUnitPrice": "2.0"}, "ContractedUnitPrice times"),
        ({"ChargeCategory": "Tax"}, "PricingQuantity must be null of a tax"),
        ({"PricingQuantity": None, "PricingUnit": None}, "PricingQuantity must not be null"),
        ({"PricingUnit": None}, "PricingUnit must be null if"),
        ({"ConsumedQuantity": None, "ConsumedUnit": None}, "ConsumedQuantity must be null"),
        ({"ConsumedUnit": None}, "ConsumedUnit must be null if"),
        ({"ChargeCategory": "Purchase"}, "must not be Usage-Based"),
        ({"ResourceType": None}, "ResourceType must be null if"),
        ({"ResourceName": "small"}, "ResourceName must not repeat"),
        ({"SubAccountName": None}, "SubAccountName must be null if"),
    ],
)
def test_what_focus_does_not_allow_is_found(
    allowed: list[dict[str, str | None]], change: dict[str, str | None], problem: str
) -> None:
    assert problem in " ".join(problems([{**allowed[0], **change}]))


def test_what_focus_does_not_allow_of_a_whole_file_is_found(allowed: list[dict[str, str | None]]) -> None:
    first, second, *_ = allowed
    less = {name: value for name, value in first.items() if name != "ListCost"}
    assert list(problems([less])) == ["row 1: ListCost is missing"]
    assert "other columns" in " ".join(problems([first, less]))
    euros = {**second, "BillingAccountId": first["BillingAccountId"], "BillingCurrency": "EUR"}
    assert "one for all of an account's rows" in " ".join(problems([first, euros]))
    assert "must come after" in " ".join(problems([{"x_Own": "1", **first}]))


# Closing a month


def test_a_closed_month_is_reproduced_to_the_byte(connection: Connection) -> None:
    once = closed(connection, MONTH, DEAR)
    assert json.dumps(closed(connection, MONTH, DEAR)) == json.dumps(once)
    assert differences(connection, once) == []


def test_a_closed_month_is_the_same_whatever_is_summed_up_meanwhile(connection: Connection) -> None:
    once = closed(connection, MONTH, DEAR)
    every = {by: charged(connection, Filter(since=START, until=END), by, DEAR) for by in GROUPINGS}
    for hour in outdated(connection)[::2]:
        renew(connection, hour)
    for day in by_day.due(connection, END + 86400, 99)[:20]:
        by_day.renew(connection, day)
    assert json.dumps(closed(connection, MONTH, DEAR)) == json.dumps(once)
    assert {by: charged(connection, Filter(since=START, until=END), by, DEAR) for by in GROUPINGS} == every


def test_what_changed_after_the_close_is_told(connection: Connection) -> None:
    document = closed(connection, MONTH, Terms())
    write(connection, [row(a_record("late", at=START + 5, tenant="acme", cost=1))])
    assert len(differences(connection, document)) == 1
    assert differences(connection, {**document, "total_nano_usd": 0}) == [
        "the file was changed: its digest does not fit"
    ]


def test_a_month_is_closed_and_verified_on_the_command_line(folder: Path) -> None:
    file = folder / "october.json"
    assert run(folder, "--month", MONTH, "--close", file).exit_code == 0
    assert "as it was closed" in run(folder, "--verify", file).stdout
    file.write_text(file.read_text().replace('"requests"', '"Requests"'))
    assert run(folder, "--verify", file).exit_code == 1
    assert run(folder, "--close", file).exit_code == 1
    this_month = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")
    assert "not over" in run(folder, "--month", this_month, "--close", file).output
