"""`python -m bench [NAME…]`: runs the measurements and prints what they found; without names, all of them."""

from __future__ import annotations

import subprocess
import sys

NAMES = {
    "start": "cold and warm start of `harkara up`",
    "bus": "publishing and consuming, CPU per message",
    "cluster": "storing on three brokers beside one",
    "due": "from due to gateway: steady, all at once, ten thousand at once",
    "memory": "memory of everything in a campaign of 100,000 messages",
    "quiet": "steps that fall into quiet hours: put off, waiting, and leaving in order",
    "claim": "due steps claimed and published, rows per CPU-second",
    "cost": "what one message costs the sender, PostgreSQL, broker and Valkey",
    "ingress": "commands over HTTP: cost and latency",
    "abuse": "what clients that misbehave do to the others",
    "messages": "pages of messages at a million rows, by every filter",
    "contacts": "pages of contacts at a million rows, by every filter; a large file in and out",
    "segments": "segments, dry runs and bulk pages of a tenant of 100,000 contacts",
    "saturate": "one number at 1,000 a second while 3,000 statuses and replies a second come in",
    "fairness": "single messages and codes while others' wait, hang and are refused",
    "erase": "what a tenant's end takes, and whether others feel it",
    "senders": "2,000 numbers: woken, idle, and one message each",
    "partners": "what it costs a partner to connect over NATS, and to send a command",
    "ops": "what operators ask, with a thousand readers and a million messages",
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
