"""What can be set from outside: one Struct, a default and a sentence each; from the environment, or `.env`."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit, urlunsplit

import msgspec
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from harkara.nkeys import AccountKey, BadSeed
from harkara.schemas.base import TENANT
from harkara.wording import misfit

#: Where commands look for settings that the environment does not name.
DOTENV = Path(".env")

#: Secrets shorter than this are refused: a HS256 key should have at least 256 bits (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32

#: Keys that are rotated out are few, and soon gone.
MOST_PREVIOUS_KEYS = 4

#: Tenants that metrics may tell apart.
MOST_MEASURED = 50

#: Where OpenTelemetry's own settings say that traces go to.
OTLP = ("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")

#: The settings of gateways that need not be at WHATSAPP_GATEWAY_URL, by their providers.
OWN_GATEWAYS = {"evolution": "evolution_url", "waha": "waha_url"}

#: A chain of proxies is short.
MOST_PROXIES = 16


#: Names in `.env` that are so much alike to one of ours are taken for a slip: it may have others' names, too.
_ALIKE = 0.9

#: Ours have no prefix, but some expect one; whoever looks for it means us.
_PREFIX = "HARKARA_"

#: OpenTelemetry has many settings of its own, all much alike.
_OTHERS = "OTEL_"

# It warns of a line without its file; `remarks` says both.
logging.getLogger("dotenv.main").disabled = True

#: A scheme, a host and perhaps a port, and nothing behind.
_ORIGIN = re.compile(r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?\Z")


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
    nats_partners_url: str = ""
    """The broker as the user `auth`, which decides on partners; without it none come over NATS."""
    nats_partners_seed: str = ""
    """Seed of the account key that signs what partners may do, `SA…`; the broker is configured with its public key."""
    redis_url: str = ""
    """Redis or Valkey: `redis://…`, `rediss://…` or `unix://…`."""
    media_url: str = ""
    """Where media is kept: `file://…` or `s3://bucket?endpoint=…`."""
    whatsapp_gateway_url: str = "http://127.0.0.1:3001"
    """The WhatsApp gateway: the sandbox, or https://graph.facebook.com."""
    evolution_url: str = ""
    """The Evolution API of senders with this provider, if it isn't WHATSAPP_GATEWAY_URL."""
    waha_url: str = ""
    """The WAHA of senders with this provider, if it isn't WHATSAPP_GATEWAY_URL."""
    public_url: str = "http://127.0.0.1:3000"
    """How the outside reaches the front door."""
    secret_key: str = ""
    """Signs tokens and encrypts stored secrets; at least 32 bytes; required outside development."""
    trusted_proxies: str = ""
    """Proxies before the front door: how many, or their addresses and networks with commas; they may say who asks."""
    cors_origins: str = ""
    """Whose pages may call the API from a browser: origins such as https://app.example with commas, or `*` alone."""
    secret_key_previous: str = ""
    """Earlier SECRET_KEYs, the newest first, with commas: what was signed and encrypted with them is still good."""
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
    supabase_url: str = ""
    """The Supabase project's address; if set, its tokens must name it as their issuer."""
    sentry_dsn: str = ""
    """Where errors are reported."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    log_json: bool = False
    """One JSON object a log line, instead of text."""
    metrics_port: int = 0
    """Where an actor's process tells its figures to Prometheus (`/metrics`); 0 is nowhere. A front door always does."""
    metrics_host: str = "127.0.0.1"
    """The address that METRICS_PORT listens on."""
    metrics_tenants: str = ""
    """Tenants whose messages are counted by tenant too, with commas. Each is a label value: name few."""
    otel_exporter_otlp_endpoint: str = ""
    """An OpenTelemetry collector (OTLP over HTTP) that takes traces; without it nothing is traced."""
    otel_exporter_otlp_traces_endpoint: str = ""
    """The same, as the whole address for traces."""
    unknown_wait_s: float = 600
    """How long a message in doubt waits for a receipt before one that may arrive twice is sent once more."""
    speed: float = 1.0
    """Step delays are divided by this; only demos and tests have another than 1."""

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """SECRET_KEY and those before it, the newest first."""
        return (self.secret_key, *(key.strip() for key in self.secret_key_previous.split(",") if key.strip()))

    def gateway_url(self, provider: str) -> str:
        """Where the gateway of senders of this provider is."""
        own = getattr(self, OWN_GATEWAYS[provider]) if provider in OWN_GATEWAYS else ""
        return own or self.whatsapp_gateway_url

    def gateway_place(self, provider: str) -> str:
        """The same for people: without a password, and with the setting that says so."""
        url = urlsplit(self.gateway_url(provider))
        shown = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
        own = OWN_GATEWAYS.get(provider)
        if own is None:
            return f"{shown} (WHATSAPP_GATEWAY_URL)"
        if getattr(self, own):
            return f"{shown} ({own.upper()})"
        return f"{shown} (WHATSAPP_GATEWAY_URL, because {own.upper()} is not set)"

    @property
    def measured_tenants(self) -> tuple[str, ...]:
        """Those that METRICS_TENANTS names."""
        return tuple(one.strip() for one in self.metrics_tenants.split(",") if one.strip())

    def __repr__(self) -> str:
        """Which are set, without the texts: URLs hold passwords."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        shown = [f"{name}={'…' if isinstance(value, str) else value}" for name, value in values.items() if value]
        return f"Settings({', '.join(shown)})"


def _of_file(dotenv: Path | None) -> dict[str, str | None]:
    """What the `.env` file says; nothing if there is none. Raises SettingsError if it can't be read."""
    try:
        return dict(dotenv_values(dotenv)) if dotenv else {}
    except OSError as error:
        raise SettingsError(f"{dotenv}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{dotenv}: byte {error.start + 1} is no UTF-8: save the file as UTF-8") from None


def remarks(dotenv: Path) -> Iterator[str]:
    """What in a `.env` file that could be read has no effect though it seems to be meant for us, each in one line."""
    if not dotenv.is_file():
        return
    ours = [name.upper() for name in Settings.__struct_fields__]
    with dotenv.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            text = binding.original.string
            line = f"{dotenv}, line {binding.original.line + text[: -len(text.lstrip())].count(chr(10))}"
            key = binding.key or ""
            if binding.error:
                yield f"{line}: can't be read, and is left out: write NAME=value, and close quotation marks"
            elif key not in ours and not key.startswith(_OTHERS):
                prefixed = key.startswith(_PREFIX)
                near = get_close_matches(key.upper().removeprefix(_PREFIX), ours, 1, 0.6 if prefixed else _ALIKE)
                if near or prefixed:
                    todo = f"is {near[0]} meant?" if near else "docs/operations.md has all there are"
                    yield f"{line}: there is no setting {key}, so it does nothing: {todo}"


def named(dotenv: Path | None = None) -> set[str]:
    """The settings that the environment or the `.env` file names; one that is named empty is not set."""
    found = _of_file(dotenv) | os.environ
    return {name for name in Settings.__struct_fields__ if found.get(name.upper())}


def load(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings: `overrides`, then the environment, then the `.env` file if one is given.

    Raises SettingsError naming the first setting that is malformed. Whether one is missing depends on the role that is
    started: `require` tells.
    """
    found = _of_file(dotenv)
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
            raise SettingsError(
                f"{name.upper()}: {misfit(error, hints[name], as_text=True)[1]} (it is {value!r})"
            ) from None
    settings = Settings(**values)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.connection_pool < 2:
        raise SettingsError("CONNECTION_POOL: must be 2 or more")
    if not 0 < settings.speed < math.inf:
        raise SettingsError("SPEED: must be a number greater than 0")
    if not 1 <= settings.unknown_wait_s <= 86400:
        raise SettingsError("UNKNOWN_WAIT_S: must be from 1 to 86400 seconds")
    if settings.environment not in {"production", "development"}:
        raise SettingsError("ENVIRONMENT: must be `production` or `development`")
    if settings.log_level.upper() not in {"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise SettingsError("LOG_LEVEL: must be DEBUG, INFO, WARNING or ERROR")
    if not 0 <= settings.metrics_port <= 65535:
        raise SettingsError("METRICS_PORT: must be from 0 to 65535")
    _check_brokers("NATS_URL", settings.nats_url)
    _check_brokers("NATS_PARTNERS_URL", settings.nats_partners_url)
    _check_measured(settings.measured_tenants)
    _check_secrets(settings)
    _check_partners(settings)
    _check_proxies(settings.trusted_proxies.strip())
    _check_origins([one.strip() for one in settings.cors_origins.split(",") if one.strip()])
    for name in ("whatsapp_gateway_url", "public_url", "supabase_url", "evolution_url", "waha_url", *OTLP):
        if name in ("supabase_url", "evolution_url", "waha_url", *OTLP) and not getattr(settings, name):
            continue
        if not getattr(settings, name).startswith(("http://", "https://")):
            raise SettingsError(f"{name.upper()}: must start with http:// or https://")


def _check_brokers(name: str, url: str) -> None:
    for one in filter(None, (one.strip() for one in url.split(","))):
        try:
            parts = urlsplit(one if "://" in one else f"nats://{one}")
            there = parts.hostname and (parts.port or True)
        except ValueError:
            there = False
        if not there:
            raise SettingsError(f"{name}: must look like nats://user:password@host:4222, several with commas")


def _check_measured(tenants: Sequence[str]) -> None:
    if len(tenants) > MOST_MEASURED:
        raise SettingsError(f"METRICS_TENANTS: at most {MOST_MEASURED}: each makes every metric of messages larger")
    for tenant in tenants:
        if not TENANT.fullmatch(tenant):
            raise SettingsError(f"METRICS_TENANTS: {tenant} is not the id of a tenant")


def _check_secrets(settings: Settings) -> None:
    newest, *previous = settings.secret_keys
    named = [("SECRET_KEY", newest), ("SUPABASE_JWT_SECRET", settings.supabase_jwt_secret)]
    for name, secret in [*named, *(("SECRET_KEY_PREVIOUS", key) for key in previous)]:
        if secret and len(secret.encode()) < MIN_SECRET_BYTES:
            raise SettingsError(f"{name}: must have at least {MIN_SECRET_BYTES} bytes")
    if len(previous) > MOST_PREVIOUS_KEYS:
        raise SettingsError(
            f"SECRET_KEY_PREVIOUS: at most {MOST_PREVIOUS_KEYS} keys; `harkara reseal` lets old ones go"
        )
    if newest in previous:
        raise SettingsError("SECRET_KEY_PREVIOUS: must not hold SECRET_KEY itself: name those before it")


def _check_partners(settings: Settings) -> None:
    if bool(settings.nats_partners_url) != bool(settings.nats_partners_seed):
        missing = "NATS_PARTNERS_SEED" if settings.nats_partners_url else "NATS_PARTNERS_URL"
        raise SettingsError(f"{missing}: is missing; partners need both NATS_PARTNERS_URL and NATS_PARTNERS_SEED")
    if settings.nats_partners_seed:
        try:
            AccountKey.of_seed(settings.nats_partners_seed)
        except BadSeed as error:
            raise SettingsError(f"NATS_PARTNERS_SEED: {error}") from None


def _check_proxies(text: str) -> None:
    if not text or (text.isdecimal() and int(text) <= MOST_PROXIES):
        return
    try:
        for one in text.split(","):
            ip_network(one.strip())
        if text.isdecimal():
            raise ValueError(text)
    except ValueError:
        raise SettingsError(
            f"TRUSTED_PROXIES: must be a number up to {MOST_PROXIES}, or addresses and networks such as 10.0.0.0/8"
        ) from None


def _check_origins(origins: list[str]) -> None:
    if "*" in origins and len(origins) > 1:
        raise SettingsError("CORS_ORIGINS: `*` stands alone: it already means every origin")
    for origin in origins:
        if origin != "*" and not _ORIGIN.match(origin):
            raise SettingsError(f"CORS_ORIGINS: {origin} is not an origin: it should look like https://app.example")


def require(settings: Settings, *names: str) -> None:
    """Raise SettingsError for the first of these settings that is empty."""
    for name in names:
        if not getattr(settings, name):
            raise SettingsError(f"{name.upper()}: is missing; set it in the environment or in .env")
