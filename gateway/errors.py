"""Every error a client can see, as a tree.  Each leaf knows its status, code and retry advice.

GatewayError
|- ClientError                     the request is wrong; the same request will fail again
|  |- InvalidRequest               400 invalid_request            malformed JSON, wrong type, absurd value
|  |- UnsupportedField             400 unsupported_field          no candidate can serve what was asked
|  |- ContextOverflow              400 context_length_exceeded
|  |- ContentRefused               400 content_filter             the provider's filter refused the prompt
|  |- PriceUnknown                 400 price_unknown              unpriced model under a hard cap
|  |- CostAboveMaximum             400 request_cost_exceeded      worst cost above what the caller allows
|  |- Unauthorized                 401 invalid_api_key
|  |- Forbidden                    403 model_not_permitted
|  |- Suspended                    403 tenant_suspended
|  |- UnknownModel                 404 model_not_found
|  |- NotFound                     404 not_found
|  |- MethodNotAllowed             405 method_not_allowed
|  |- RequestTimeout               408 request_timeout            the request itself did not arrive in time
|  |- Conflict                     409 conflict
|  |- BodyTooLarge                 413 request_too_large
|  `- UpstreamRejected             400.. upstream_rejected        the provider says the request is wrong
|- LimitReached                    429
|  |- BudgetExceeded               429 budget_exceeded            never retried, never failed over
|  `- RateLimited                  429 rate_limit_exceeded
|- Unavailable                     the request may be right; later or elsewhere it may work
|  |- LedgerUnavailable            503 ledger_unavailable
|  |- Overloaded                   503 overloaded
|  `- NoDeployment                 503 no_deployment              every candidate is out of service
|- UpstreamFailure                 a provider failed; the next step of the plan may do better
|  |- UpstreamUnreachable          502 upstream_unreachable
|  |- UpstreamBroken               502 upstream_broken            reset, cut or unreadable reply
|  |  `- UpstreamLeft              502 stale_connection           a kept connection was closed as we used it
|  |- UpstreamFailed               502 upstream_error             its own 5xx
|  |- UpstreamTimeout              504 upstream_timeout
|  |- UpstreamRateLimited          429 upstream_rate_limited
|  |- UpstreamOverloaded           503 upstream_overloaded
|  `- UpstreamDenied               502 upstream_denied            our key or account there is refused
`- InternalError                   500 internal_error             a bug of ours
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class GatewayError(Exception):
    """Base of the tree.  `message` is shown to the client: it names what was wrong, where, and what would be right."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "api_error"  # OpenAI's error.type
    anthropic_type: ClassVar[str] = "api_error"  # Anthropic's error.type
    retryable: ClassVar[bool] = False  # what `x-should-retry` says
    failover: ClassVar[bool] = False  # whether the next step of the plan is tried

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.recorded = False  # whether a record tells of it


class ClientError(GatewayError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    anthropic_type = "invalid_request_error"


class InvalidRequest(ClientError):
    """Malformed JSON, a wrong type, an absurd value."""


class UnsupportedField(ClientError):
    code = "unsupported_field"
    failover = True


class ContextOverflow(ClientError):
    code = "context_length_exceeded"
    failover = True


class ContentRefused(ClientError):
    code = "content_filter"


class PriceUnknown(ClientError):
    code = "price_unknown"


class CostAboveMaximum(ClientError):
    code = "request_cost_exceeded"


class Unauthorized(ClientError):
    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    anthropic_type = "authentication_error"


class Forbidden(ClientError):
    status = 403
    code = "model_not_permitted"
    type = "permission_error"
    anthropic_type = "permission_error"


class Suspended(Forbidden):
    code = "tenant_suspended"


class UnknownModel(ClientError):
    status = 404
    code = "model_not_found"
    anthropic_type = "not_found_error"


class NotFound(ClientError):
    status = 404
    code = "not_found"
    anthropic_type = "not_found_error"


class MethodNotAllowed(ClientError):
    """The path is right and takes other methods, which `allow` tells as HTTP asks for."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, path: str, allowed: Iterable[str] = ()) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(f"{path[:200]} takes {self.allow}.")


class RequestTimeout(ClientError):
    status = 408
    code = "request_timeout"
    retryable = True


class Conflict(ClientError):
    status = 409
    code = "conflict"


class BodyTooLarge(ClientError):
    status = 413
    code = "request_too_large"
    anthropic_type = "request_too_large"


class UpstreamRejected(ClientError):
    """The provider says the request is wrong.  Keeps the provider's own status, code and type where they are sane."""

    code = "upstream_rejected"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        upstream_status: int = 400,
        upstream_code: str | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code


class LimitReached(GatewayError):
    """A limit of the tenant's.  Carries the figures the client needs to understand it."""

    status = 429
    type = "rate_limit_error"
    anthropic_type = "rate_limit_error"
    code = "limit_reached"

    def __init__(
        self,
        message: str,
        *,
        account: str = "",
        window: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
        balance: object = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.account = account
        self.window = window
        self.balance = balance  # gateway.ledger.base.Balance of the limit, where the ledger refused


class BudgetExceeded(LimitReached):
    code = "budget_exceeded"
    type = "insufficient_quota"


class RateLimited(LimitReached):
    code = "rate_limit_exceeded"
    retryable = True


class Unavailable(GatewayError):
    status = 503
    code = "unavailable"
    anthropic_type = "overloaded_error"
    retryable = True


class LedgerUnavailable(Unavailable):
    code = "ledger_unavailable"


class Overloaded(Unavailable):
    code = "overloaded"


class NoDeployment(Unavailable):
    code = "no_deployment"


class UpstreamFailure(GatewayError):
    """A provider failed before its answer was complete."""

    status = 502
    code = "upstream_error"
    retryable = True
    failover = True


class UpstreamUnreachable(UpstreamFailure):
    """Refused, DNS, TLS: nothing reached the provider, so nothing is owed."""

    code = "upstream_unreachable"


class UpstreamBroken(UpstreamFailure):
    code = "upstream_broken"


class UpstreamLeft(UpstreamBroken):
    """A kept connection ended, without a byte of a reply, just as a request was sent on it."""

    code = "stale_connection"


class UpstreamFailed(UpstreamFailure):
    code = "upstream_error"


class UpstreamTimeout(UpstreamFailure):
    status = 504
    code = "upstream_timeout"


class UpstreamRateLimited(UpstreamFailure):
    status = 429
    code = "upstream_rate_limited"
    type = "rate_limit_error"
    anthropic_type = "rate_limit_error"


class UpstreamOverloaded(UpstreamFailure):
    status = 503
    code = "upstream_overloaded"
    anthropic_type = "overloaded_error"


class UpstreamDenied(UpstreamFailure):
    """Our own key or account is refused there: never shown as the client's 401."""

    code = "upstream_denied"
    retryable = False
    of_key = True  # whether another key may do; False: it is the model that is not served


class InternalError(GatewayError):
    """A bug of ours."""
