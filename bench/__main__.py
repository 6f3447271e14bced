"""What a request costs, beside others and by itself: all of it within ten minutes, or any part alone.

    python -m bench [PART ...] [--only NAME ...] [--seconds 2] [--minutes 10]

`stages`, `growth` and `policies` run inside one process; the other parts are those of `bench.compare`.  What is left
out for want of time is said.  Installing the contenders comes on top, once.  `soak` is meant to be run alone: 500,000
requests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from bench import compare
from bench.contenders import ROOT, install

INSIDE = ("stages", "growth", "policies")
USUAL = (*INSIDE, *(name for name in compare.PARTS if name != "soak"))
FOR_GROWTH_S = 90.0
"""At most, where others are to come."""


def main(options: argparse.Namespace) -> None:
    """Runs the parts in the order given."""
    if not compare.ALONE.issuperset(set(options.parts) - set(INSIDE)) and not options.only:
        install()
    until = time.monotonic() + options.minutes * 60
    for name in INSIDE:
        if name in options.parts:
            within_s = until - time.monotonic() if set(options.parts) <= set(INSIDE) else FOR_GROWTH_S
            try:
                subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=ROOT, timeout=within_s, check=True)
            except subprocess.TimeoutExpired:
                print(f"{name}: left out, it took longer than {within_s:.0f} s")
    parts = [name for name in options.parts if name in compare.PARTS]
    if parts:
        compare.main(parts, options.only, options.seconds, until - time.monotonic())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join((*USUAL, "soak")))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    found = parser.parse_args()
    if unknown := set(found.parts) - {*USUAL, "soak"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join((*USUAL, 'soak'))}")
    found.parts = found.parts or list(USUAL)
    main(found)
