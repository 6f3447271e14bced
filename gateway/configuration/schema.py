"""What may stand in a configuration file.  Pydantic, used at start-up only; `gateway.settings` turns it into nouns."""

from __future__ import annotations

import types
import typing
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.configuration.provider_schema import ProviderShape, TimeoutsShape
from gateway.configuration.quantities import (
    Count,
    Dollars,
    Minute,
    ModelName,
    Moment,
    Name,
    Positive,
    Rate,
    RedisUrl,
    Seconds,
    Shape as Shape,  # noqa: PLC0414  # the base of whatever others write
    Url,
    listed,
    scheme,
)
from gateway.types import Action, Capability, Decline, Every

TENANT_ACCOUNTS = ("tenant", "key", "user", "task", "model", "team", "deployment", "provider", "tag:NAME")
"""What a tenant's or key's limit may be kept for, within the tenant."""
EVERYONE_ACCOUNTS = ("global", "organisation", *TENANT_ACCOUNTS)
"""What a limit of everyone may be kept for: deployment, provider, model and tags across tenants, the rest for each."""


def _policy(value: object) -> object:
    return {value: {}} if isinstance(value, str) else value


def _no_name_twice(policies: list[Any]) -> list[Any]:
    if any(len(policy) != 1 for policy in policies):
        raise ValueError("each entry must be one policy: `- name: {option: value}`")
    return policies


def _unknown_price(value: object) -> object:
    return {"unknown": True} if value == "unknown" else value


class ServerTimeouts(Shape):
    """Seconds."""

    keep_alive_s: Positive = 75.0
    body_s: Positive = 60.0  # to receive a request
    announce_s: Annotated[float, Field(ge=0)] = 1.0  # for load balancers to see on /readyz that it is stopping
    drain_s: Positive = 30.0  # for requests in flight when stopping


class Server(Shape):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    request_bytes_max: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    bodies_bytes_max: Annotated[int, Field(ge=1024)] = 1024**3  # of requests in one worker; half of it for one tenant
    timeouts: ServerTimeouts = ServerTimeouts()


class LedgerOptions(Shape):
    """`hold_s`: how long a hold lives unless extended; `timeout_s`: after which the ledger counts as unreachable."""

    hold_s: Positive = 120.0
    timeout_s: Positive = 0.045


class PresetShape(Shape):
    """A known vendor: all of a provider but the account."""

    dialect: str
    base_url: Url = ""
    headers: dict[str, str] = {}
    options: dict[str, Any] = {}
    prices: str = ""  # the genai-prices provider; {vendor} and {suffix} are parts of the model's name
    source: str
    date: date


class RatesShape(Shape):
    """Dollars per million tokens of each bucket, or the name of the bucket it is billed as."""

    input: Rate | None = None
    cache_read: Rate | None = None
    cache_write_5m: Rate | None = None
    cache_write_30m: Rate | None = None
    cache_write_1h: Rate | None = None
    cache_write_12h: Rate | None = None
    output: Rate | None = None
    reasoning: Rate | None = None
    audio_in: Rate | None = None
    audio_cache_read: Rate | None = None
    audio_out: Rate | None = None
    image_in: Rate | None = None
    image_out: Rate | None = None
    video_in: Rate | None = None


class TierShape(RatesShape):
    """Rates once the input passes `above` tokens."""

    above: Count
    marginal: bool = False


class WindowShape(RatesShape):
    """Rates from `start` to `end`, UTC, on `weekdays`."""

    start: Minute
    end: Minute
    weekdays: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], min_length=1
    )


class VariantShape(RatesShape):
    """Rates of a service tier or of batches."""

    tiers: list[TierShape] = []
    multiplier: Positive | None = None  # of every standard rate
    like: str = ""  # another variant, whose rates it has; where that one is not known, neither is this

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.like and self.model_fields_set != {"like"}:
            raise ValueError("`like` stands alone: the rates are those of the other variant")
        return self


class PriceShape(RatesShape):
    """Rates, or what a machine costs, or a change to the listed price."""

    per_hour: Dollars | None = None
    tokens_per_second: Positive | None = None
    utilization: float = Field(1.0, gt=0, le=1)
    multiplier: Positive | None = None
    discount: float | None = Field(None, ge=0, le=1)
    fees: dict[str, Dollars] = {}
    tiers: list[TierShape] = []
    windows: list[WindowShape] = []
    variants: dict[str, VariantShape] = {}
    unknown: bool = False
    source: str = ""


class DeploymentShape(Shape):
    """One place to call one model."""

    id: ModelName
    provider: str
    upstream_model: str = Field(min_length=1)
    price: Annotated[PriceShape | None, BeforeValidator(_unknown_price)] = None
    context_max: Count | None = None
    output_max: Count | None = None
    capabilities: list[Capability] | None = None
    region: str = ""
    quality: float | None = Field(None, ge=0, le=1)
    tokens_per_second: Positive | None = None
    tokenizer: str | None = None
    cache_writes: bool | None = None
    tier: str = ""  # frontier, say: for tenants that were granted it
    timeouts: TimeoutsShape | None = None  # in place of its provider's
    concurrency_max: Annotated[int, Field(ge=1)] | None = None  # calls at once of one worker


class RouteShape(Shape):
    """Candidates and the policies that choose among them."""

    candidates: list[str] = Field(min_length=1)
    baseline: str | None = None
    timeout_s: Positive | None = None  # for a whole request, whatever is tried
    failover_on: list[Decline] = []  # refusals that another candidate is asked after, beside failures
    policies: Annotated[
        list[Annotated[dict[str, dict[str, Any] | None], BeforeValidator(_policy)]], AfterValidator(_no_name_twice)
    ] = []


class LimitShape(Shape):
    """One amount per calendar window or rolling time."""

    account: str = "tenant"
    limit_usd: Dollars | None = None
    requests: Count | None = None
    tokens: Count | None = None  # in and out
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    concurrent: Count | None = None
    window: Every | None = None
    rolling: Seconds | None = None
    action: Action = Action.DENY
    id: Name | None = None
    of: str = ""  # only this account, in place of the limits for all of its kind
    until: Moment | None = None  # when it ends


class RateLimitsShape(Shape):
    """Rolling windows: the last 60 seconds, hour or day at any moment."""

    account: str = "tenant"
    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None  # in and out
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    input_tokens_per_minute: Count | None = None
    input_tokens_per_hour: Count | None = None
    input_tokens_per_day: Count | None = None
    output_tokens_per_minute: Count | None = None
    output_tokens_per_hour: Count | None = None
    output_tokens_per_day: Count | None = None
    concurrent: Count | None = None


RateLimits = Annotated[list[RateLimitsShape], BeforeValidator(listed)]


class KeyShape(Shape):
    """A secret's hash, or for development the secret."""

    name: Name
    id: Name | None = None
    hash: str | None = Field(None, pattern=r"^sha256:[0-9a-fA-F]{64}$")
    key: str | None = Field(None, min_length=8)
    expires: Moment | None = None
    models: list[str] = ["*"]
    endpoints: list[str] = ["*"]
    budgets: list[LimitShape] = []
    rate_limits: RateLimits = []


class TenantShape(Shape):
    """Who pays."""

    id: Name
    keys: list[KeyShape] = []
    organisation: str = ""
    models: list[str] = ["*"]
    endpoints: list[str] = ["*"]  # chat, messages, embeddings ...
    tiers: list[str] = []  # granted ones
    regions: list[str] = []  # where its requests may be served; none: anywhere
    budgets: list[LimitShape] = []
    rate_limits: RateLimits = []
    tags: dict[str, str] = {}
    timezone: str = "UTC"
    on_ledger_outage: Literal["refuse_if_capped", "refuse", "pass"] = "refuse_if_capped"
    drop_params: bool = False
    suspended: bool = False
    priority: Literal["high", "normal", "low"] = "normal"  # who goes first where places are few
    resume_streams: bool = False  # one that broke off goes on from another deployment, and both parts are charged
    request_cost_max_usd: Dollars | None = None


class Webhook(Shape):
    """Where alerts are sent: the alert as JSON, or a message for Slack."""

    url: Url
    kind: Literal["json", "slack"] = "json"
    headers: dict[str, str] = {}


class Alerts(Shape):
    """When to tell, and whom beside the log and the metrics.  Shares and ratios of money; amounts in dollars."""

    webhooks: list[Webhook] = []
    every_s: Positive = 10.0
    trends_every_s: Positive = 300.0
    budget_shares: list[Positive] = [0.5, 0.8, 1.0]
    daily_ratio: Positive = 1.5  # today's spend to the mean of the seven days before
    trend_ratio: Positive = 10.0  # a tenant's spend in an hour to its mean hour
    mix_shift: Positive = 0.3  # share of a tenant's spend that went to other deployments than before
    retry_rate: Positive = 0.1  # repeated attempts per request in an hour, if also three times the usual
    agreement_min: Annotated[float, Field(ge=0, le=1)] = 0.7  # of a day's answers with the shadow's, where it is exact
    agreement_drop: Annotated[float, Field(gt=0, le=1)] = 0.15  # against the seven days before
    floor_usd: Dollars = Decimal(1)
    requests_min: Count = 50


class Learning(Shape):
    """Whose requests are learned from: shell patterns; who is not named is not."""

    salt: str = Field(min_length=16, max_length=64)  # a secret: without it a reading cannot be searched for words
    routes: list[str] = Field(min_length=1)
    tenants: list[str] = Field(min_length=1)
    keep_days: Count = 90


class File(Shape):
    """The whole of gateway.yaml."""

    server: Server = Server()
    redis: RedisUrl | None = (
        None  # redis[s]://, redis[s]+cluster://HOST,HOST, redis[s]+sentinel://HOST,HOST/NAME, unix://
    )
    database: Annotated[str, scheme("sqlite", "postgresql", "postgresql+psycopg", "postgres")] = (
        "sqlite:///./tollgate.db"
    )
    admin_key: str | None = Field(None, min_length=8)
    spool: str = "./spool"  # where records wait on disk while nothing else takes them
    spool_bytes_max: Count = 1024**3
    ledger: LedgerOptions = LedgerOptions()
    alerts: Alerts = Alerts()
    learning: Learning | None = None  # None: nothing is kept of any request
    providers: dict[Name, ProviderShape] = {}
    deployments: list[DeploymentShape] = []
    routes: dict[ModelName, RouteShape] = {}
    tenants: list[TenantShape] = []
    limits: list[LimitShape] = []


class PriceOverride(Shape):
    """A correction to the price list."""

    provider: str
    model: str  # a shell pattern
    price: Annotated[PriceShape, BeforeValidator(_unknown_price)]
    source: str
    date: date
    since: Moment | None = None  # it holds from then on
    until: Moment | None = None  # and no longer


class ModelFacts(Shape):
    """What a family of models holds, says and cannot do."""

    match: list[str] = Field(min_length=1)  # shell patterns, tried on the name and on its last part
    context_max: Count | None = None  # in and out together
    output_max: Count | None = None
    lacks: list[Capability] = []
    cache_writes: bool = False
    source: str
    date: date


class ProvidersFile(Shape):
    """providers.yaml."""

    providers: dict[Name, PresetShape] = {}


class PricesFile(Shape):
    """prices.yaml."""

    prices: list[PriceOverride] = []
    models: list[ModelFacts] = []


def fields_at(shape: type[Shape], path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand at `path` below `shape`; none where anything may."""
    kind: Any = shape
    for part in path:
        kind = _inner(kind, part)
    kind = _bare(kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Shape) else []


def _bare(kind: object) -> object:
    while True:
        origin = typing.get_origin(kind)
        if origin is Annotated:
            kind = typing.get_args(kind)[0]
        elif origin in (typing.Union, types.UnionType):
            kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        else:
            return kind


def _inner(kind: object, part: str | int) -> object:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Shape):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    if isinstance(part, int) and typing.get_origin(kind) is not list:
        return None
    args = typing.get_args(kind)
    return args[-1] if args else None
