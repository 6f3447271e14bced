"""A gateway that dies as by SIGKILL at one point of a request's path, once the file `die` is in its folder.

python dying.py POINT CONFIG PORT
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.batches.work import Work
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.server import serve
from gateway.settlements import Settlements
from gateway.upstream import Upstream

POINTS: dict[str, tuple[type, str, bool]] = {
    "before it is set aside": (Pipeline, "hold", False),
    "after it was set aside": (Pipeline, "hold", True),
    "before the provider is called": (Upstream, "open", False),
    "after the provider was called": (Upstream, "open", True),
    "after the client was answered": (Pipeline, "pass_on", True),
    "before it is settled": (Settlements, "settle", False),
    "after it was settled": (Settlements, "settle", True),
    "before its record is in SQL": (Recorder, "_store", False),
    "after its record is in SQL and before that is acknowledged": (Recorder, "_store", True),
}

BATCH_POINTS: dict[str, tuple[type, str, bool]] = {
    "before a batch is submitted": (Work, "_submit", False),
    "after a provider was called with a batch": (Upstream, "open", True),
    "after a batch was submitted and before that is known": (Work, "_talk", True),
    "after the first line was settled": (Settlements, "book", True),
    "after every line was settled and before that is told": (Work, "_end", False),
}


def die_at(point: str, folder: Path) -> None:
    """From now on the gateway of this process dies there."""
    owner, name, after = (POINTS | BATCH_POINTS)[point]
    method: Callable[..., Any] = getattr(owner, name)

    def die() -> None:
        if (folder / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    async def dying(*args: Any, **options: Any) -> Any:
        if not after:
            die()
        result = await method(*args, **options)
        if after:
            die()
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    config = Path(sys.argv[2])
    die_at(sys.argv[1], config.parent)
    serve(config, port=int(sys.argv[3]))
