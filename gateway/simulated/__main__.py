"""`python -m gateway.simulated --port 9000`: the simulated provider over TCP."""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from gateway.simulated.batches import BATCH_S
from gateway.simulated.server import Server
from gateway.tokens.encodings import load


async def serve(host: str, port: int, batch_s: float) -> None:
    """Serves until interrupted.  The address is the first line on stdout."""
    load("o200k_base")
    server = Server(batch_s=batch_s)
    await server.start(host, port)
    sys.stdout.write(f"http://{host}:{server.port}\n")
    sys.stdout.flush()
    await server.wait()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.simulated", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--batch-s", type=float, default=BATCH_S, help="how long a batch takes")
    options = parser.parse_args()
    try:
        uvloop.run(serve(options.host, options.port, options.batch_s))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(0)


if __name__ == "__main__":
    main()
