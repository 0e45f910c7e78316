"""What can be set from outside: one Struct, a default and a sentence each; from the environment, or `.env`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from dotenv import dotenv_values

#: Secrets shorter than this are refused: a HS256 key should have at least 256 bits (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32


class SettingsError(Exception):
    """A setting is missing or malformed; the text names it in one line."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. The environment variable has the field's name in upper case."""

    database_url: str = ""
    """PostgreSQL as the role harkara_app; may lead through a transaction pooler."""
    database_direct_url: str = ""
    """PostgreSQL as the owner, straight to the server: migrations only."""
    connection_pool: int = 20
    """Most database connections of this process group."""
    nats_url: str = ""
    """The broker, `nats://user:password@host:4222`; several with commas."""
    nats_creds: str = ""
    """Path of a credentials file for the broker, instead of user and password."""
    redis_url: str = ""
    """Redis or Valkey: `redis://…`, `rediss://…` or `unix://…`."""
    media_url: str = ""
    """Where media is kept: `file://…` or `s3://bucket?endpoint=…`."""
    whatsapp_gateway_url: str = "http://127.0.0.1:3001"
    """The WhatsApp gateway: the sandbox, or https://graph.facebook.com."""
    public_url: str = "http://127.0.0.1:3000"
    """How the outside reaches the front door."""
    secret_key: str = ""
    """Signs tokens and encrypts stored secrets; at least 32 bytes; required outside development."""
    environment: str = "production"
    """`production` or `development`."""
    stripe_api_key: str = ""
    """Stripe's secret key."""
    stripe_api_base: str = ""
    """Stripe's address, if not the real one."""
    stripe_webhook_secret: str = ""
    """Signs Stripe's webhooks."""
    supabase_jwt_secret: str = ""
    """If set, Supabase Auth tokens signed with it are accepted."""
    sentry_dsn: str = ""
    """Where errors are reported."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    log_json: bool = False
    """One JSON object a log line, instead of text."""
    speed: float = 1.0
    """Step delays are divided by this; only demos and tests have another than 1."""

    def __repr__(self) -> str:
        """Which are set, without the texts: URLs hold passwords."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        shown = [f"{name}={'…' if isinstance(value, str) else value}" for name, value in values.items() if value]
        return f"Settings({', '.join(shown)})"


def load(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings: `overrides`, then the environment, then the `.env` file if one is given.

    Raises SettingsError naming the first setting that is malformed. Whether one is missing depends on the role that is
    started: `require` tells.
    """
    found: dict[str, str | None] = dict(dotenv_values(dotenv)) if dotenv else {}
    found.update(os.environ if environ is None else environ)
    values: dict[str, Any] = {
        name: found[name.upper()] for name in Settings.__struct_fields__ if found.get(name.upper()) not in (None, "")
    }
    values.update(overrides)
    hints = get_type_hints(Settings)
    for name, value in values.items():
        try:
            values[name] = msgspec.convert(value, hints[name], strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{name.upper()}: {error} (it is {value!r})") from None
    settings = Settings(**values)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.connection_pool < 2:
        raise SettingsError("CONNECTION_POOL: must be 2 or more")
    if not 0 < settings.speed < math.inf:
        raise SettingsError("SPEED: must be a number greater than 0")
    if settings.environment not in {"production", "development"}:
        raise SettingsError("ENVIRONMENT: must be `production` or `development`")
    if settings.log_level.upper() not in {"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise SettingsError("LOG_LEVEL: must be DEBUG, INFO, WARNING or ERROR")
    if settings.secret_key and len(settings.secret_key.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(f"SECRET_KEY: must have at least {MIN_SECRET_BYTES} bytes")
    for name in ("whatsapp_gateway_url", "public_url"):
        if not getattr(settings, name).startswith(("http://", "https://")):
            raise SettingsError(f"{name.upper()}: must start with http:// or https://")


def require(settings: Settings, *names: str) -> None:
    """Raise SettingsError for the first of these settings that is empty."""
    for name in names:
        if not getattr(settings, name):
            raise SettingsError(f"{name.upper()}: is missing; set it in the environment or in .env")
