"""`python -m bench [NAME…]`: runs the measurements and prints what they found; without names, all of them."""

from __future__ import annotations

import subprocess
import sys

NAMES = {
    "start": "cold and warm start of `harkara up`",
    "bus": "publishing and consuming, CPU per message",
    "due": "from due to gateway: steady, all at once, ten thousand at once",
    "claim": "due steps claimed and published, rows per CPU-second",
    "ingress": "commands over HTTP: cost and latency",
    "messages": "pages of messages at a million rows, by every filter",
    "saturate": "one number at 1,000 a second while 3,000 statuses and replies a second come in",
    "feed": "the live feed: deliveries, latency, memory per socket",
}


def main() -> int:
    """Run each measurement as a process of its own, so that none sees another's memory or event loop."""
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        print(f"there is no measurement {unknown[0]!r}; there are:")
        for name, about in NAMES.items():
            print(f"  {name:8} {about}")
        return 2
    return max(_run(name) for name in wanted)


def _run(name: str) -> int:
    print(f"\n== {name}: {NAMES[name]}", flush=True)
    return subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode


sys.exit(main())
