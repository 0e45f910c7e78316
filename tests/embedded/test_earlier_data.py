"""A data directory of a version whose broker knew no partners: all that was stored is there."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import nats
from nats.js.api import ConsumerConfig, RetentionPolicy
from support import until

from harkara.embedded import binaries
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Stack

#: Its accounts, as they stood in nats/server.conf.
BEFORE = """
server_name: harkara
listen: "127.0.0.1:{port}"
max_payload: 4MB
jetstream {{ store_dir: "{store}", max_mem: 256MB, max_file: 20GB, sync_interval: 1s }}
accounts {{
  SYS {{ users: [ {{ user: sys, password: "before" }} ] }}
  APP {{ jetstream: enabled, users: [ {{ user: svc, password: "before" }} ] }}
}}
system_account: SYS
"""


async def test_streams_and_places_in_them_are_kept(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_ports(1)[0]
    data.mkdir(mode=0o700)
    config = tmp_path / "before.conf"
    config.write_text(BEFORE.format(port=port, store=data / "nats"))
    program = await binaries.nats_server()
    before = await asyncio.create_subprocess_exec(
        str(program), "-c", str(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"nats://svc:before@127.0.0.1:{port}"
        await until(lambda: _fill(url), "the earlier broker has stored what it was given")
    finally:
        before.terminate()
        await before.wait()
    async with Stack(data, database_url="postgres://elsewhere", redis_url="redis://elsewhere") as urls:
        client = await nats.connect(urls.nats)
        js = client.jetstream()
        assert (await js.stream_info("COMMANDS")).state.messages == 2
        waiting = await js.pull_subscribe_bind("dispatcher", stream="COMMANDS")
        (message,) = await waiting.fetch(1, timeout=60)
        assert message.data == b"two"
        await client.close()


async def _fill(url: str) -> bool:
    """Store three commands, of which one is done and one goes on; False if the broker does not answer yet."""
    try:
        client = await nats.connect(url, allow_reconnect=False, max_reconnect_attempts=0, connect_timeout=1)
    except (OSError, nats.errors.Error):
        return False
    # Nothing of this may be done twice.
    js = client.jetstream(timeout=60)
    await js.add_stream(name="COMMANDS", subjects=["t.*.cmd.>"], retention=RetentionPolicy.WORK_QUEUE)
    await js.add_consumer("COMMANDS", ConsumerConfig(durable_name="dispatcher"))
    for text in (b"one", b"two", b"three"):
        await js.publish("t.acme.cmd.message.send", text)
    done = await js.pull_subscribe_bind("dispatcher", stream="COMMANDS")
    (message,) = await done.fetch(1, timeout=60)
    await message.ack_sync(timeout=60)
    await client.close()
    return True
