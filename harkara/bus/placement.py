"""On which servers of a cluster the streams and their consumers lie, and what is missing of that."""

from __future__ import annotations

from typing import Any

import msgspec
from nats.js import JetStreamContext

from harkara.bus.api import NO_STREAM, Api, ApiError
from harkara.bus.errors import Unavailable
from harkara.bus.topology import Topology, load

#: A server that leads a stream hears from those that follow every second.
_SILENT_NS = 5 * 10**9


class Placed(msgspec.Struct, frozen=True):
    """A stream, or a consumer as STREAM/CONSUMER: who leads it, who has all of it too, and who has not."""

    what: str
    leader: str
    whole: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def copies(self) -> int:
        """How many servers have all of it."""
        return bool(self.leader) + len(self.whole)


async def placed(js: JetStreamContext, topology: Topology | None = None) -> list[Placed]:
    """Where everything lies, in the page's order; nothing on a single server. Raises Unavailable."""
    api = Api.over(js)
    found: list[Placed] = []
    for stream in (topology or load()).streams:
        try:
            info = await api.call(f"STREAM.INFO.{stream.name}")
        except ApiError as error:
            if error.code != NO_STREAM:  # that there is none, the topology's differences say
                found.append(Placed(stream.name, "", (), ()))
            continue
        except Unavailable:
            found.append(Placed(stream.name, "", (), ()))
            continue
        # A single server names itself as the leader, and no cluster.
        if info.get("cluster", {}).get("name"):
            found += [_of(stream.name, info), *await _consumers(api, stream.name)]
    return found


def faults(places: list[Placed], replicas: int) -> list[str]:
    """What is not as it should be, a line each; empty if everything lies on `replicas` servers, whole."""
    lines: list[str] = []
    for place in places:
        if not place.leader:
            lines.append(f"{place.what}: no server leads it; most of those that keep it are away")
        elif place.behind:
            lines.append(f"{place.what}: {', '.join(place.behind)} away or behind; {place.leader} leads")
        elif place.copies < replicas:
            lines.append(f"{place.what}: lies on {place.copies} of {replicas} servers")
    return lines


async def _consumers(api: Api, stream: str) -> list[Placed]:
    found: list[dict[str, Any]] = []
    while True:
        try:
            answer = await api.call(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        except (ApiError, Unavailable):
            return []
        page: list[dict[str, Any]] = answer["consumers"] or []
        found += page
        if not page or len(found) >= answer["total"]:
            break
    # A feed's consumer lies on one server on purpose: it is made anew wherever there is one.
    lasting = [_of(f"{stream}/{one['name']}", one) for one in found if one["config"].get("durable_name")]
    return [*lasting, *(Placed(f"{stream}/{name}", "", (), ()) for name in answer.get("missing") or ())]


def _of(what: str, info: dict[str, Any]) -> Placed:
    cluster: dict[str, Any] = info["cluster"]
    others: list[dict[str, Any]] = cluster.get("replicas") or []
    bad = [one for one in others if not _whole(one)]
    return Placed(
        what,
        cluster.get("leader", ""),
        tuple(sorted(one["name"] for one in others if one not in bad)),
        tuple(sorted(one["name"] for one in bad)),
    )


def _whole(replica: dict[str, Any]) -> bool:
    silent = replica.get("active", 0) > _SILENT_NS
    return bool(replica.get("current")) and not replica.get("offline") and not silent
