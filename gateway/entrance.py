"""Whether a step may be taken now: its circuit lets a call through, a key and its deployment have room for one more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Self

from gateway.admission import IDLE, Gate, Gates, Priority
from gateway.credentials.keyring import Keyring
from gateway.errors import GatewayError, NoDeployment, UpstreamOverloaded, UpstreamRateLimited, UpstreamTimeout
from gateway.health import Condition, Health
from gateway.plan import Step
from gateway.types import Deployment, Request, Route, Tenant

QUEUE_S = 30.0
"""How long a request may wait for a place where nobody else can serve it."""
QUEUE_ELSEWHERE_S = 0.3
"""The same where another deployment can."""
IDLE_SHARE = 0.5
"""Of the places: with more of them taken there is none to spare."""
STRAIN = (UpstreamRateLimited, UpstreamOverloaded, UpstreamTimeout)
CLIENT_SHARE = 0.95
"""Of the time a client waits: then it hears from us instead of giving up, and what it cost is known."""


def until(request: Request, route: Route | None, began: float) -> float:
    """When (loop time) the whole request has to be over, as its route and a client that waits for its whole say."""
    limit_s = math.inf if route is None or route.timeout_s is None else route.timeout_s
    if not request.stream and request.timeout_s is not None:
        limit_s = min(limit_s, request.timeout_s * CLIENT_SHARE)
    return began + limit_s


def first_byte_s(request: Request, seconds: float) -> float:
    """How long the first byte may take: what its deployment is given, or less if the client of a stream gives up."""
    return seconds if request.timeout_s is None else min(seconds, request.timeout_s * CLIENT_SHARE)


def patient(request: Request, step: Step, waited_s: float) -> bool:
    """Whether a call that ended for want of time had all the time its deployment is given."""
    times = step.deployment.timeouts or step.deployment.provider.timeouts
    return waited_s >= (min(times.first_byte_s, times.idle_s, times.total_s) if request.stream else times.total_s)


def tokens(step: Step) -> tuple[int, int]:
    """What a call is expected to take of a provider's own limits: tokens in and out."""
    return step.estimate.expected, (step.output_expected + step.reasoning_expected) * step.choices


class Place:
    """One call on its way; used as a context, it is given back when the call is over."""

    __slots__ = ("_condition", "_gate", "_now", "_step", "_tenant")

    def __init__(self, gate: Gate, tenant: Tenant, condition: Condition, step: Step, now: Callable[[], float]) -> None:
        self._gate, self._tenant, self._condition, self._step, self._now = gate, tenant, condition, step, now

    def __enter__(self) -> Self:
        condition = self._condition
        condition.began(self._now())
        if condition.quotas:
            condition.sent(*tokens(self._step))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._gate.answered()
        elif isinstance(error, STRAIN):
            self._gate.strained()
        self._condition.ended()
        self._gate.leave(self._tenant.id, self._condition.circuit.share(self._now()))


class Entrance:
    """The way to every deployment."""

    def __init__(self, health: Health, gates: Gates, keyring: Keyring, now: Callable[[], float]) -> None:
        self._health, self._gates, self._keyring, self._now = health, gates, keyring, now

    def in_service(self, step: Step) -> bool:
        """Whether the circuit of its deployment lets a call through, with a key that has room for one."""
        deployment = step.deployment
        admitted = self._health.of(deployment.id).circuit.admits(self._now())
        return admitted and self._keyring.wait_s(deployment.provider) <= 0

    def check(self, steps: Iterable[Step], tenant: Tenant) -> None:
        """Returns if some step may be taken, now or after a wait.  Raises NoDeployment, Overloaded.

        It is asked before money is set aside: a storm is turned away at little cost.
        """
        full: GatewayError | None = None
        for step in steps:
            if self.in_service(step):
                gate = self._gate(step.deployment)
                if gate.free(tenant.id) or not gate.hopeless(tenant.id, QUEUE_S):
                    return
                full = full or gate.overloaded(tenant.id)
        raise full or self.nobody(steps)

    def nobody(self, steps: Iterable[Step]) -> NoDeployment:
        """The error of a request that nobody can be asked to serve, with the moment when somebody can."""
        waits = (self._wait_s(step.deployment) for step in steps)
        return NoDeployment(
            "Every deployment that could serve this request is out of service.", retry_after_s=min(waits, default=5.0)
        )

    async def enter(self, step: Step, tenant: Tenant, ends: float, *, last: bool) -> Place:
        """A place; it waits for one at most until `ends` (loop time), and not long unless the step is the last.

        The provider's own limits are only known by hearsay: the last step is tried without room in them.
        Raises Overloaded.
        """
        condition, gate = self._health.of(step.deployment.id), self._gate(step.deployment)
        if condition.quotas and not last and not condition.room(self._now(), *tokens(step)):
            raise gate.overloaded(tenant.id)
        share = condition.circuit.share(self._now())
        if tenant.priority == IDLE:
            gate.take_spare(tenant.id, share * IDLE_SHARE)
        elif gate.free(tenant.id, share):
            gate.take(tenant.id)
        else:
            wait_max_s = min(QUEUE_S if last else QUEUE_ELSEWHERE_S, ends - self._now())
            await gate.enter(tenant.id, wait_max_s, Priority[tenant.priority.upper()], share)
        return Place(gate, tenant, condition, step, self._now)

    def _wait_s(self, deployment: Deployment) -> float:
        circuit_s = self._health.of(deployment.id).circuit.wait_s(self._now())
        return max(circuit_s, self._keyring.wait_s(deployment.provider))

    def _gate(self, deployment: Deployment) -> Gate:
        return self._gates.of(deployment.id, deployment.concurrency_max or deployment.provider.max_connections)
