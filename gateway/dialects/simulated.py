"""The simulated provider (`gateway.simulated`) speaks OpenAI's format; only its address leads nowhere but inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from gateway.dialects import relay
from gateway.dialects.base import Call
from gateway.dialects.openai_chat import OpenAIChat
from gateway.plan import Step
from gateway.types import Request, Tenant


class Simulated(OpenAIChat):
    """See Dialect.  A script in `metadata` reaches the provider from clients of every format."""

    __slots__ = ()

    name: ClassVar[str] = "simulated"

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """As OpenAI's, at simulated://PROVIDER unless the provider has an address."""
        call = super().encode(request, step, tenant)
        provider = step.deployment.provider
        if not provider.base_url:
            call = replace(call, url=f"simulated://{provider.id}/v1{call.url}")
        script = _script(request)
        if request.format is self.format or not script:
            return call
        return replace(call, body=msgspec.json.encode({**relay.fields(call.body), "metadata": script}))


def _script(request: Request) -> Mapping[str, object]:
    """What translation leaves out: the options of `gateway.simulated.script`."""
    metadata = request.body.get("metadata")
    if not isinstance(metadata, Mapping):
        return {}
    return {name: value for name, value in metadata.items() if name == "sim" or name.startswith("sim_")}
