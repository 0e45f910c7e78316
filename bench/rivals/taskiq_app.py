"""The async stack: taskiq on JetStream, which of its brokers costs least at this work, asyncpg, aiohttp."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from uuid import uuid4

import aiohttp
import asyncpg
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_nats import PullBasedJetStreamBroker

broker = PullBasedJetStreamBroker(os.environ["NATS_URL"], pull_consume_batch=100).with_middlewares(
    SimpleRetryMiddleware(default_retry_count=5)
)
environment = SandboxedEnvironment()

READ = """
select p.campaign_id, p.contact_id, p.next_step_at, k.name, k.phone, k.attributes,
       s.position, s.body, s.next_id, s.next_after_hours
from rivals.progress p join rivals.contacts k on k.id = p.contact_id join rivals.steps s on s.id = p.next_step_id
where p.id = $1
"""

INSERT = """
insert into rivals.messages
       (id, contact_id, campaign_id, progress_id, step, phone, content, status, wamid, due_at, sent_at)
values ($1, $2, $3, $4, $5, $6, $7, 'sent', $8, $9, $10)
"""

MOVE = """
update rivals.progress set status = $2, current_step = current_step + 1, messages_sent = messages_sent + 1,
       last_step_at = $3, next_step_id = $4, next_step_at = $5
where id = $1
"""


async def jsonb(con: asyncpg.Connection) -> None:
    """JSON columns are Python's objects."""
    await con.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    """Connect once a worker."""
    state.database = await asyncpg.create_pool(os.environ["DATABASE_URL"], init=jsonb)
    headers = {"Authorization": f"Bearer {os.environ['ACCESS_TOKEN']}"}
    state.http = aiohttp.ClientSession(
        os.environ["GATEWAY_URL"], headers=headers, timeout=aiohttp.ClientTimeout(10), raise_for_status=True
    )


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    """Disconnect."""
    await state.http.close()
    await state.database.close()


@lru_cache(maxsize=1000)
def template(body: str) -> Template:
    """A step's text, parsed once."""
    return environment.from_string(body)


@broker.task(retry_on_error=True)
async def send(progress_id: str, context: Annotated[Context, TaskiqDepends()]) -> None:
    """Send the step that one contact has come to."""
    database: asyncpg.Pool = context.state.database
    http: aiohttp.ClientSession = context.state.http
    row = await database.fetchrow(READ, progress_id)
    text = template(row["body"]).render(name=row["name"], attributes=row["attributes"])
    content = {"type": "text", "text": {"body": text}}
    asked = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": row["phone"], **content}
    async with http.post("/v23.0/1/messages", json=asked) as answer:
        wamid = (await answer.json(content_type=None))["messages"][0]["id"]
    now = datetime.now(UTC)
    after = row["next_after_hours"]
    status, due = ("finished", None) if after is None else ("active", now + timedelta(hours=after))
    async with database.acquire() as con, con.transaction():
        await con.execute(
            INSERT,
            uuid4(),
            row["contact_id"],
            row["campaign_id"],
            progress_id,
            row["position"],
            row["phone"],
            content,
            wamid,
            row["next_step_at"],
            now,
        )
        await con.execute(MOVE, progress_id, status, now, row["next_id"], due)
