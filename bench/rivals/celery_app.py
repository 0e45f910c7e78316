"""The usual stack: Celery's prefork workers, Redis, SQLAlchemy, requests."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

import requests
from celery import Celery
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment
from sqlalchemy import ForeignKey, MetaData, create_engine
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, sessionmaker

GATEWAY_URL = os.environ["GATEWAY_URL"]

app = Celery("rivals", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(task_ignore_result=True, task_acks_late=True)

Session = sessionmaker(create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:", 1)))
http = requests.Session()
http.headers["Authorization"] = f"Bearer {os.environ['ACCESS_TOKEN']}"
environment = SandboxedEnvironment()


class Base(DeclarativeBase):
    metadata = MetaData(schema="rivals")
    type_annotation_map = {datetime: TIMESTAMP(timezone=True), dict[str, Any]: JSONB}  # noqa: RUF012


class Contact(Base):
    __tablename__ = "contacts"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    phone: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    opted_in_at: Mapped[datetime]


class Step(Base):
    __tablename__ = "steps"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID]
    position: Mapped[int]
    body: Mapped[str]
    next_id: Mapped[UUID | None]
    next_after_hours: Mapped[int | None]


class Progress(Base):
    __tablename__ = "progress"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    campaign_id: Mapped[UUID]
    contact_id: Mapped[UUID] = mapped_column(ForeignKey(Contact.id))
    status: Mapped[str]
    current_step: Mapped[int]
    messages_sent: Mapped[int]
    next_step_id: Mapped[UUID | None] = mapped_column(ForeignKey(Step.id))
    next_step_at: Mapped[datetime | None]
    last_step_at: Mapped[datetime | None]
    contact: Mapped[Contact] = relationship()
    next_step: Mapped[Step] = relationship()


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    contact_id: Mapped[UUID]
    campaign_id: Mapped[UUID]
    progress_id: Mapped[UUID]
    step: Mapped[int]
    phone: Mapped[str]
    content: Mapped[dict[str, Any]]
    status: Mapped[str]
    wamid: Mapped[str]
    due_at: Mapped[datetime]
    sent_at: Mapped[datetime]


@lru_cache(maxsize=1000)
def template(body: str) -> Template:
    """A step's text, parsed once."""
    return environment.from_string(body)


@app.task(autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=5)
def send(progress_id: str) -> None:
    """Send the step that one contact has come to."""
    with Session() as session:
        ahead = [joinedload(Progress.contact), joinedload(Progress.next_step)]
        progress = session.get_one(Progress, UUID(progress_id), options=ahead)
        contact, step = progress.contact, progress.next_step
        text = template(step.body).render(name=contact.name, attributes=contact.attributes)
        content = {"type": "text", "text": {"body": text}}
        answer = http.post(
            f"{GATEWAY_URL}/v23.0/1/messages",
            json={"messaging_product": "whatsapp", "recipient_type": "individual", "to": contact.phone, **content},
            timeout=10,
        )
        answer.raise_for_status()
        now = datetime.now(UTC)
        message = Message(
            contact_id=contact.id,
            campaign_id=progress.campaign_id,
            progress_id=progress.id,
            step=step.position,
            phone=contact.phone,
            content=content,
            status="sent",
            wamid=answer.json()["messages"][0]["id"],
            due_at=progress.next_step_at,
            sent_at=now,
        )
        session.add(message)
        progress.current_step += 1
        progress.messages_sent += 1
        progress.last_step_at = now
        progress.next_step_id = step.next_id
        if step.next_after_hours is None:
            progress.status, progress.next_step_at = "finished", None
        else:
            progress.next_step_at = now + timedelta(hours=step.next_after_hours)
        session.commit()
