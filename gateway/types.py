"""The nouns.  Frozen, no I/O; imports nothing of ours but those of a provider and of a limit.

Money is `NanoUSD`, an int of 1e-9 dollars.  A price is NanoUSD per million tokens.  Floats never touch money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

from msgspec import Struct, field
from msgspec.structs import force_setattr

from gateway.limit import (
    ALERT as ALERT,
    CONCURRENT as CONCURRENT,
    COST as COST,
    DEGRADE as DEGRADE,
    DENY as DENY,
    INPUT_TOKENS as INPUT_TOKENS,
    ORGANISATION as ORGANISATION,
    OUTPUT_TOKENS as OUTPUT_TOKENS,
    REQUESTS as REQUESTS,
    STEP_KINDS as STEP_KINDS,
    TOKENS as TOKENS,
    Account as Account,
    Action as Action,
    Every as Every,
    Limit as Limit,
    Unit as Unit,
    Window as Window,
)
from gateway.provider import Provider as Provider, Timeouts as Timeouts

NanoUSD: TypeAlias = int

NANO = 1_000_000_000  # NanoUSD in a dollar


class Format(StrEnum):
    """A wire format a client may speak or a provider may be spoken to in."""

    CHAT = "chat"  # OpenAI Chat Completions
    MESSAGES = "messages"  # Anthropic Messages
    GEMINI = "gemini"  # Google's generateContent
    CONVERSE = "converse"  # Amazon Bedrock Converse
    COHERE = "cohere"  # Cohere Chat v2
    OLLAMA = "ollama"  # Ollama's own chat
    RESPONSES = "responses"  # OpenAI Responses
    COMPLETIONS = "completions"  # OpenAI's legacy Completions
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    MODERATIONS = "moderations"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    IMAGE_VARIATIONS = "image_variations"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"  # of speech, into English text
    SPEECH = "speech"


class Capability(StrEnum):
    """What a request may need and a deployment may have."""

    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    VISION = "vision"
    AUDIO = "audio"
    FILES = "files"
    LOGPROBS = "logprobs"
    N = "n"
    REASONING = "reasoning"


class Bucket(StrEnum):
    """Disjoint kinds of tokens.  A token is counted in exactly one of them."""

    INPUT = "input"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_30M = "cache_write_30m"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    OUTPUT = "output"
    REASONING = "reasoning"
    AUDIO_IN = "audio_in"
    AUDIO_CACHE_READ = "audio_cache_read"
    AUDIO_OUT = "audio_out"
    IMAGE_IN = "image_in"
    IMAGE_OUT = "image_out"
    VIDEO_IN = "video_in"


INPUT, CACHE_READ, OUTPUT, REASONING = Bucket.INPUT, Bucket.CACHE_READ, Bucket.OUTPUT, Bucket.REASONING
"""By names of their own, as units below."""
OUTPUT_BUCKETS = frozenset({Bucket.OUTPUT, Bucket.REASONING, Bucket.AUDIO_OUT, Bucket.IMAGE_OUT})
INPUT_BUCKETS = frozenset(Bucket) - OUTPUT_BUCKETS
WRITE_BUCKETS = frozenset(bucket for bucket in Bucket if bucket.startswith("cache_write"))
READ_BUCKETS = frozenset({Bucket.CACHE_READ, Bucket.AUDIO_CACHE_READ})


class Usage(Struct, frozen=True):
    """What one call used.  `tokens` has disjoint buckets and holds no zeros; `fees` counts units billed per piece."""

    tokens: Mapping[Bucket, int] = field(default_factory=dict)
    fees: Mapping[str, int] = field(default_factory=dict)  # web_search, request, ...: how many
    exact: bool = True  # False: our own count, because the provider gave none
    service_tier: str = ""  # as the reply says; "" is the standard one
    reported_cost: NanoUSD | None = None  # the provider's own figure, if it gave one
    flags: tuple[str, ...] = ()  # contradictions that were clamped, in words
    reported: Mapping[str, Any] = field(default_factory=dict)  # the provider's block as it came
    input_tokens: int = 0  # every token that went in, cached or not; follows from `tokens`, whatever is given
    output_tokens: int = 0  # every token that came out, visible or not; likewise
    cached_tokens: int = 0  # input tokens read from the provider's prompt cache; likewise

    def __post_init__(self) -> None:
        went_in = came_out = read = 0
        for bucket, count in self.tokens.items():
            if bucket in INPUT_BUCKETS:
                went_in += count
                if bucket in READ_BUCKETS:
                    read += count
            else:
                came_out += count
        force_setattr(self, "input_tokens", went_in)
        force_setattr(self, "output_tokens", came_out)
        force_setattr(self, "cached_tokens", read)


class Estimate(Struct, frozen=True):
    """Input tokens of a request on one deployment before the call: what is likely, and what it will not pass."""

    expected: int
    bound: int


class Price(Struct, frozen=True, dict=True):
    """NanoUSD per million tokens of each bucket, NanoUSD per piece of each fee.

    A bucket that is absent has no known price: usage in it makes the cost unknown, never zero.  `known=False` is the
    price of a model nobody has priced; a free model has rates of 0.
    """

    rates: Mapping[Bucket, NanoUSD] = field(default_factory=dict)
    fees: Mapping[str, NanoUSD] = field(default_factory=dict)
    tiers: tuple[Tier, ...] = ()  # ascending by `above`
    variants: Mapping[str, Price] = field(default_factory=dict)  # flex, priority, batch, ...
    windows: tuple[PriceWindow, ...] = ()
    known: bool = True
    source: str = ""  # where the figures come from, with a date

    @cached_property
    def worked_out(self) -> dict[tuple[str, bool, bool], Any]:
        """What follows from it and is asked for with every request: kept here by gateway.money."""
        return {}

    @cached_property
    def charges_writes(self) -> bool:
        """Whether writing to the cache costs more than being read: such providers say what they have written."""
        read = self.rates.get(Bucket.INPUT, 0)
        return any(self.rates.get(bucket, 0) > read for bucket in WRITE_BUCKETS)


class Tier(Struct, frozen=True):
    """Rates once the input passes `above` tokens.  A cliff reprices the whole call, a marginal tier the rest."""

    above: int
    rates: Mapping[Bucket, NanoUSD]
    marginal: bool = False


class PriceWindow(Struct, frozen=True):
    """Rates that hold in a part of the UTC day, [start, end) in minutes; over midnight when end < start."""

    start_minute: int
    end_minute: int
    rates: Mapping[Bucket, NanoUSD]
    weekdays: frozenset[int] = frozenset(range(7))  # Monday is 0


UNKNOWN_PRICE = Price(known=False, source="no price known")


class Cost(Struct, frozen=True):
    """Usage times price.  `total` is None when a part of it could not be priced; `unknown` says which."""

    total: NanoUSD | None
    components: Mapping[str, NanoUSD] = field(default_factory=dict)  # bucket or "fee"; sums to the total
    unknown: tuple[str, ...] = ()


class Deployment(Struct, frozen=True):
    """One place to call one model."""

    id: str
    provider: Provider
    upstream_model: str
    price: Price = UNKNOWN_PRICE
    context_max: int | None = None  # tokens in and out together; None: not known, not checked
    output_max: int | None = None  # tokens; None: not known
    capabilities: frozenset[str] = frozenset(Capability)
    region: str = ""
    quality: float | None = None  # 0..1, for policies
    tokens_per_second: float | None = None
    tokenizer: str = ""  # the counting family, if the operator names one; else gateway.tokens knows it by the model
    cache_writes: bool = False  # whether the provider charges writes that the request did not ask for
    tier: str = ""  # frontier, say: only for tenants that were granted it; "": for all
    timeouts: Timeouts | None = None  # in place of its provider's
    concurrency_max: int | None = None  # calls at once of one worker; None: its provider's connections
    as_reported: bool = False  # the cost that its provider reports is the one that is settled


class Decline(StrEnum):
    """Why a route may ask elsewhere although nothing failed."""

    CONTENT_FILTER = "content_filter"  # the provider refuses the request
    REFUSAL = "refusal"  # the answer is none: its model or a filter declined


class Route(Struct, frozen=True):
    """A named set of candidates with policies, asked for as a model."""

    id: str
    candidates: tuple[str, ...]  # deployment ids
    policies: tuple[Any, ...] = ()  # gateway.plan.Policy, applied in order
    baseline: str | None = None  # deployment id whose cost is the comparison
    timeout_s: float | None = None  # for the whole request, whatever is tried
    failover_on: frozenset[Decline] = frozenset()


class Key(Struct, frozen=True):
    """Proof of a tenant.  Only the SHA-256 of the secret is kept."""

    id: str
    tenant: str
    name: str
    digest: bytes
    expires: float | None = None  # unix seconds
    models: tuple[str, ...] = ("*",)
    limits: tuple[Limit, ...] = ()
    endpoints: tuple[str, ...] = ("*",)

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.tenant!r})"


class Tenant(Struct, frozen=True):
    """Who pays."""

    id: str
    models: tuple[str, ...] = ("*",)  # routes and deployments it may ask for; shell patterns
    limits: tuple[Limit, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo = UTC
    on_ledger_outage: str = "refuse_if_capped"  # refuse_if_capped | refuse | pass
    drop_params: bool = False  # drop what a dialect cannot say instead of refusing it
    suspended: bool = False
    request_cost_max: NanoUSD | None = None
    endpoints: tuple[str, ...] = ("*",)  # chat, messages, embeddings ...; shell patterns
    tiers: tuple[str, ...] = ()  # tiers of deployments it was granted
    regions: tuple[str, ...] = ()  # where its requests may be served; (): anywhere
    priority: str = "normal"  # high, normal or low: who goes first where places are few
    resume_streams: bool = False  # whether a stream that broke off may go on from another deployment


class Request(Struct, frozen=True):
    """What a client asked, as it came.  `raw` is relayed; `body` is the same bytes parsed, read only."""

    id: str
    format: Format
    raw: bytes
    body: Mapping[str, Any]
    model: str  # as asked for: a route, a deployment or an upstream model name
    stream: bool
    received: float  # unix seconds
    key: Key
    tags: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    task: str = ""
    cost_max: NanoUSD | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # the few that are passed on, lower case
    deadline_s: float | None = None  # from `received` on, until when its answer is of use; None: as soon as can be
    timeout_s: float | None = None  # how long its client waits: for the whole, or for the first byte of a stream
    pinned: str = ""  # the deployment that must serve it: it holds what the request builds on
    shadow_of: str = ""  # the client's request that the gateway repeats by this one; "": a client's own

    def __repr__(self) -> str:
        return f"Request({self.id!r}, {self.format!r}, {self.model!r})"


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    UPSTREAM_ERROR = "upstream_error"
    BROKEN_STREAM = "broken_stream"
    PRESUMED = "presumed"  # nobody settled: the gateway died in mid-request
    RESOLVED = "resolved"  # nobody settled, and an operator said what it cost
    REFUSED = "refused"


class Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """What happened: one per request that reached a provider, always.  Written without defaults: half as long."""

    id: str
    version: int  # 0 presumed, 1 settled: the recorder keeps the highest
    at: float  # unix seconds when the request came
    tenant: str
    key: str
    endpoint: str
    model: str  # asked for
    route: str
    deployment: str
    provider: str
    upstream_model: str  # sent
    outcome: Outcome
    response_model: str = ""  # answered
    stream: bool = False
    user: str = ""
    task: str = ""
    tags: Mapping[str, str] = {}
    tokens: Mapping[str, int] = {}
    fees: Mapping[str, int] = {}
    estimated: bool = False  # tokens are our own count
    cost: NanoUSD | None = None  # None: unknown
    components: Mapping[str, NanoUSD] = {}
    reported_cost: NanoUSD | None = None  # the provider's own figure
    calculated_cost: NanoUSD | None = None  # usage times price, whichever of both is settled
    service_tier: str = ""  # as billed
    baseline_cost: NanoUSD | None = None
    savings: Mapping[str, NanoUSD] = {}  # by cause, before overhead: see gateway.savings
    overhead_cost: NanoUSD = 0  # judges and answers thrown away; within `cost`
    reserved: NanoUSD = 0
    status: int = 0  # HTTP status the client saw
    error: str = ""  # code
    finish_reason: str = ""
    attempts: int = 1
    latency_ms: int = 0
    first_token_ms: int = 0
    tokens_estimated: int = 0  # input, before the call
    reasons: str = ""
    flags: tuple[str, ...] = ()
    shadow_of: str = ""  # the client's request that this one repeats, for comparison
