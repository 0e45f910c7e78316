"""Durable consumers: created when missing, brought to what they should be when they differ."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from harkara.bus.api import NO_STREAM, Api, ApiError
from harkara.bus.errors import TopologyError, Unavailable
from harkara.bus.topology import Consumers


async def declare(
    api: Api,
    stream: str,
    durable: str,
    filters: Sequence[str],
    consumers: Consumers,
    inactive_threshold: timedelta | None = None,
) -> None:
    """Create or update one durable. Raises TopologyError for what cannot be, Unavailable for what cannot be now."""
    config: dict[str, object] = {
        "name": durable,
        "durable_name": durable,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "ack_wait": int(consumers.ack_wait_s * 1e9),
        # Attempts are counted by outcome, not by delivery: at a limit here a work queue would strand the message.
        "max_deliver": -1,
        "max_ack_pending": consumers.max_ack_pending,
        "filter_subjects": list(filters),
    }
    if inactive_threshold is not None:
        config["inactive_threshold"] = int(inactive_threshold.total_seconds() * 1e9)
    try:
        await api.call(f"CONSUMER.CREATE.{stream}.{durable}", {"stream_name": stream, "config": config})
    except ApiError as error:
        if error.code == NO_STREAM:
            raise Unavailable(f"stream {stream} is missing: run `harkara topology apply`") from error
        if 500 <= error.status < 600:
            raise Unavailable(f"consumer {durable} on {stream}: {error}") from error
        raise TopologyError(f"consumer {durable} on {stream} cannot be declared: {error}") from error
