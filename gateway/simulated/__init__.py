"""A provider that ships with the product: deterministic answers, scripted by the model's name or `metadata`.

It speaks OpenAI Chat Completions and Anthropic Messages, inside the process (`SimulatedTransport`) or over TCP
(`python -m gateway.simulated --port 9000`).  `gateway.simulated.script.Script` lists what can be scripted:

    sim-small?first_token_ms=300&tps=80&output=120       a slow model
    sim-small?status=429&retry_after=2                   an error
    sim-small?reset=middle                               a connection that breaks in the middle of the answer
    metadata: {"sim": "cached=0.5&reasoning=64"}         the same, in one request

The same prompt gets the same answer, exactly as many o200k tokens long as the usage says.
"""

from gateway.simulated.transport import SimulatedTransport

__all__ = ["SimulatedTransport"]
