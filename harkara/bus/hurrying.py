"""Bringing back now what waits on a schedule, because what it waits for has happened."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from harkara.bus import headers
from harkara.bus.api import NO_MESSAGE, Api, ApiError
from harkara.bus.errors import BusError
from harkara.bus.messages import Ack, Packet
from harkara.bus.settle import rfc3339
from harkara.bus.subjects import as_token
from harkara.bus.topology import Topology

#: Schedules that are asked for at once.
AT_ONCE = 50


class Hurry:
    """Finds the schedule of each message by the message's id, and puts one for now in its place."""

    def __init__(
        self, api: Api, topology: Topology, send: Callable[[Sequence[Packet]], Awaitable[list[Ack | BusError]]]
    ) -> None:
        self._api, self._topology, self._send = api, topology, send

    async def __call__(self, tenant: str, actor: str, ids: Sequence[str]) -> int:
        """Hurry these messages of one actor; how many there were to hurry. Raises BusError: some may wait still.

        One whose schedule has fired at this very moment comes twice, as after any crash.
        """
        found = 0
        for start in range(0, len(ids), AT_ONCE):
            parked = await asyncio.gather(*(self._parked(tenant, actor, id_) for id_ in ids[start : start + AT_ONCE]))
            packets = [packet for packet in parked if packet is not None]
            for answer in await self._send(packets) if packets else ():
                if isinstance(answer, BusError):
                    raise answer
            found += len(packets)
        return found

    async def _parked(self, tenant: str, actor: str, id_: str) -> Packet | None:
        """The schedule of a message, for now."""
        subject = f"t.{tenant}.at.{actor}.{as_token(id_)}.>"
        stream = self._topology.stream_of(subject).name
        try:
            answer = await self._api.call(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": subject})
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        named = headers.read(b64decode(message.get("hdrs", "")))
        named[headers.DEDUPE] = f"hurry.{stream}.{message['seq']}"
        named[headers.SCHEDULE] = "@at " + rfc3339(datetime.now(UTC))
        return Packet(message["subject"], b64decode(message.get("data", "")), named)
