"""A client's file of requests -> lines that are planned, priced and written for one provider.

Whatever is wrong is said with the number of the line, before anything is set aside.  A batch goes to one provider as a
whole: of those that can serve every line, the cheapest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs
from msgspec.structs import replace

from gateway import accounts
from gateway.batches.nouns import Line
from gateway.dialects.base import Dialect
from gateway.dialects.batches.base import BatchWire, Item
from gateway.dialects.batches.wires import path_of, wire_of
from gateway.errors import CostAboveMaximum, GatewayError, InvalidRequest
from gateway.exchange import Exchange
from gateway.ledger.base import Line as Account, Reservation
from gateway.money import BATCH, dollars
from gateway.pipeline import Pipeline
from gateway.plan import Plan, Step
from gateway.tokens import Content
from gateway.types import STEP_KINDS, Every, Limit, NanoUSD, Request, Route, Tenant, Unit

LINES_MAX = 50_000
CUSTOM_ID_MAX = 512
LINES_A_TURN = 20
"""Lines that are planned before other requests have a turn."""
HOLD_S = 48 * 3600.0
"""Providers end a batch after a day; what is set aside lives twice as long, and is kept longer where it must."""
PACES = frozenset({Every.MINUTE, Every.HOUR})

Read = Callable[[str, bytes], Request]
"""A line's id and body -> what it asks, as if it had come by itself."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A line as the client wrote it, and how each deployment could serve it."""

    number: int  # from 1, as an editor counts
    custom_id: str
    request: Request
    content: Content
    route: Route | None
    steps: Mapping[str, Step]  # by deployment


@dataclass(frozen=True, slots=True)
class Order:
    """A batch that can be served."""

    lines: list[Line]
    items: list[Item]
    steps: Mapping[str, Step]  # one of each deployment

    @property
    def reserved(self) -> NanoUSD:
        """The most all of it can cost, as far as that is known."""
        return sum(line.held.draft.reserved for line in self.lines)


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_LINE = msgspec.json.Decoder(_Line)


class _Named:
    """Errors within name the line."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GatewayError):
            error.message = f"Line {self.number}: {error.message}"
            error.args = (error.message,)


async def ordered(
    pipeline: Pipeline, tenant: Tenant, url: str, content: bytes, read: Read, id_: str, cost_max: NanoUSD | None
) -> Order:
    """The whole file.  Raises what planning a single request raises, InvalidRequest, CostAboveMaximum."""
    asked: list[Asked] = []
    seen: dict[str, int] = {}
    for number, line in _lines(content):
        with _Named(number):
            if len(asked) >= LINES_MAX:
                raise InvalidRequest(f"A batch may have at most {LINES_MAX} lines.", param="input_file_id")
            request_line = _checked(line, url, seen, number)
            request = read(f"{id_}_{number}", bytes(request_line.body))
            asked.append(await _planned(pipeline, tenant, request, request_line.custom_id, number))
        if len(asked) % LINES_A_TURN == 0:
            await asyncio.sleep(0)
    if not asked:
        raise InvalidRequest("The file has no lines.", param="input_file_id")
    return await _written(pipeline, tenant, asked, _chosen(asked), id_, cost_max)


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, each with its number; none is copied before its turn."""
    at, number = 3 if content.startswith(b"\xef\xbb\xbf") else 0, 0
    while at < len(content):
        end = content.find(b"\n", at)
        end = len(content) if end < 0 else end
        number += 1
        if line := content[at:end].strip():
            yield number, line
        at = end + 1


def _checked(raw: bytes, url: str, seen: dict[str, int], number: int) -> _Line:
    try:
        line = _LINE.decode(raw)
    except msgspec.ValidationError as error:
        words = str(error)
        raise InvalidRequest(f"{words[:1].lower()}{words[1:]}; a line has custom_id, method, url and body.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this is not JSON: {error}.") from None
    if not 0 < len(line.custom_id) <= CUSTOM_ID_MAX:
        raise InvalidRequest(f"`custom_id` must have 1 to {CUSTOM_ID_MAX} characters.", param="custom_id")
    if line.custom_id in seen:
        message = f"`custom_id` {line.custom_id[:64]!r} is that of line {seen[line.custom_id]} already."
        raise InvalidRequest(message, param="custom_id")
    seen[line.custom_id] = number
    if line.method != "POST":
        raise InvalidRequest(f"`method` must be POST, not {line.method[:16]!r}.", param="method")
    if line.url != url:
        raise InvalidRequest(f"`url` must be {url!r}, the batch's endpoint, not {line.url[:64]!r}.", param="url")
    return line


async def _planned(pipeline: Pipeline, tenant: Tenant, request: Request, custom_id: str, number: int) -> Asked:
    """What is planned is the request as if it asked for a service tier: that of batches."""
    _alone(request)
    parts = pipeline.parts
    _, candidates = pipeline.planner.permitted(request, tenant)
    if not any(wire_of(each.provider) for each in candidates):
        raise InvalidRequest(f"model {request.model!r} has no deployment whose provider takes batches.", param="model")
    priced = replace(request, body={**request.body, "service_tier": BATCH})
    content = await parts.counter.content(priced)
    fill = parts.fills.fullest(request, tenant, pipeline.limits)
    share = 0.0 if fill is None else fill.share
    route, plan = pipeline.planner.plan(priced, tenant, content, request.received, share)
    steps = {step.deployment.id: step for step in plan.steps if wire_of(step.deployment.provider) is not None}
    if not steps:
        message = f"no provider that takes batches can serve this for model {request.model!r}."
        raise InvalidRequest(message, param="model")
    return Asked(number, custom_id, request, content, route, steps)


def _alone(request: Request) -> None:
    """What only makes sense in a request that somebody waits for."""
    for name, plain in (("stream", (None, False)), ("background", (None, False))):
        if request.body.get(name) not in plain:
            raise InvalidRequest(f"`{name}` cannot be asked for in a batch.", param=name)
    if request.body.get("service_tier") not in (None, "auto", "default", "standard", "standard_only", BATCH):
        raise InvalidRequest("`service_tier` cannot be chosen in a batch: it is one.", param="service_tier")
    if request.pinned:
        raise InvalidRequest("a line cannot build on a stored response.", param="previous_response_id")


def _chosen(asked: list[Asked]) -> Mapping[str, str]:
    """The deployment that serves each model asked for: one provider, the cheapest that can serve all lines."""
    fits: dict[str, dict[str, NanoUSD]] = {}  # by model: deployments that serve all its lines, and for how much
    providers: set[str] | None = None
    for line in asked:
        model, costs = line.request.model, {id_: step.worst_cost or 0 for id_, step in line.steps.items()}
        known = fits.get(model)
        fits[model] = costs if known is None else {id_: known[id_] + costs[id_] for id_ in known if id_ in costs}
        here = {line.steps[id_].deployment.provider.id for id_ in fits[model]}
        providers = here if providers is None else providers & here
        if not providers:
            with _Named(line.number):
                raise InvalidRequest(
                    f"no provider that takes batches can serve model {model!r} here and all lines before: "
                    "a batch goes to one provider.",
                    param="model",
                )
    steps = {id_: step for line in asked for id_, step in line.steps.items()}
    offers = {id_: _offer(id_, fits, steps) for id_ in sorted(providers or ())}
    possible = {id_: found for id_, found in offers.items() if not _mixed(found, steps)}
    if not possible:
        _refuse_mixed(asked, next(iter(offers.values())))
    return min(possible.values(), key=lambda found: sum(fits[model][id_] for model, id_ in found.items()))


def _offer(provider: str, fits: Mapping[str, Mapping[str, NanoUSD]], steps: Mapping[str, Step]) -> dict[str, str]:
    """The cheapest deployment of the provider for each model."""
    return {
        model: min(
            (id_ for id_ in costs if steps[id_].deployment.provider.id == provider), key=lambda id_: (costs[id_], id_)
        )
        for model, costs in fits.items()
    }


def _mixed(offer: Mapping[str, str], steps: Mapping[str, Step]) -> bool:
    """Whether it has more models than the provider takes in one batch."""
    models = {steps[id_].deployment.upstream_model for id_ in offer.values()}
    wire = wire_of(steps[next(iter(offer.values()))].deployment.provider)
    return len(models) > 1 and wire is not None and wire.one_model


def _refuse_mixed(asked: list[Asked], offer: Mapping[str, str]) -> None:
    first = asked[0]
    own = first.steps[offer[first.request.model]].deployment
    for line in asked:
        served = line.steps[offer[line.request.model]].deployment
        if served.upstream_model != own.upstream_model:
            with _Named(line.number):
                raise InvalidRequest(
                    f"model {line.request.model!r} is not that of line {first.number}, {first.request.model!r}: "
                    f"provider {own.provider.id!r} takes one model in a batch.",
                    param="model",
                )


async def _written(
    pipeline: Pipeline,
    tenant: Tenant,
    asked: list[Asked],
    chosen: Mapping[str, str],
    id_: str,
    cost_max: NanoUSD | None,
) -> Order:
    lines: list[Line] = []
    items: list[Item] = []
    steps = {line.request.model: line.steps[chosen[line.request.model]] for line in asked}
    wire = wire_of(next(iter(steps.values())).deployment.provider)
    size = total = 0
    for line in asked:
        step = line.steps[chosen[line.request.model]]
        with _Named(line.number):
            items.append(_item(pipeline.dialects[step.deployment.provider.dialect], line.request, step, tenant))
            held = _held(pipeline, tenant, line, step, id_)
            size, total = size + len(items[-1].body), total + held.draft.reserved
            _bounded(wire, len(items), size, step)
            if cost_max is not None and (step.worst_cost is None or total > cost_max):
                raise CostAboveMaximum(
                    f"with it the batch could cost ${dollars(total)}, above the maximum of ${dollars(cost_max)}."
                )
        lines.append(
            Line(line.custom_id, step.deployment.id, step.estimate.expected, step.output_cap, step.choices, held)
        )
        if len(lines) % LINES_A_TURN == 0:
            await asyncio.sleep(0)
    return Order(lines, items, {step.deployment.id: step for step in steps.values()})


def _item(dialect: Dialect, request: Request, step: Step, tenant: Tenant) -> Item:
    """As the provider would be asked if the line had come by itself."""
    call = dialect.encode(request, step, tenant)
    return Item(request.id, path_of(call), call.body)


def _bounded(wire: BatchWire | None, count: int, size: int, step: Step) -> None:
    provider = step.deployment.provider.id
    if wire is not None and count > wire.lines_max:
        raise InvalidRequest(f"provider {provider!r} takes at most {wire.lines_max} lines.", param="input_file_id")
    if wire is not None and size > wire.bytes_max:
        message = f"provider {provider!r} takes at most {wire.bytes_max} bytes, and with this line there are {size}."
        raise InvalidRequest(message, param="input_file_id")


def _held(pipeline: Pipeline, tenant: Tenant, line: Asked, step: Step, id_: str) -> Reservation:
    """What the line may cost, in every account it touches; its draft tells that it is of a batch."""
    plan = Plan((step,), reasons=("batch",))
    exchange = Exchange(line.request, tenant, line.route, plan, line.content, 0.0)
    found = accounts.lines(line.request, tenant, pipeline.limits, plan)
    held = exchange.reserve(tuple(each for each in found if _holds(each)), HOLD_S)
    tags: dict[str, Any] = {**held.draft.tags, BATCH: id_}
    return structs.replace(held, draft=structs.replace(held.draft, service_tier=BATCH, tags=tags))


def _holds(line: Account) -> bool:
    """A limit on pace is about what reaches a provider now: within a batch the provider sets the pace."""
    limit: Limit = line.limit
    if limit.unit is Unit.COST:
        return True
    if limit.unit is Unit.CONCURRENT or limit.account in STEP_KINDS:
        return False
    window = limit.window
    return window.rolling_s >= 86_400 if window.rolling_s else window.every not in PACES  # a day
