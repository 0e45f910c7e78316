"""Settings: from the environment, then `.env`; what is wrong is named in one line."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from harkara.settings import Settings, SettingsError, load, named, remarks, require

SECRET = "a secret of thirty-two bytes, or more"


def test_a_dotenv_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"DATABASE_URL=caf\xe9\n")
    with pytest.raises(SettingsError, match=re.escape(f"{dotenv}: byte 17 is no UTF-8")):
        load({}, dotenv=dotenv)


def test_what_in_a_dotenv_file_seems_to_be_meant_for_us_and_does_nothing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        "# what others read\nLOG_LEVEL=INFO\n\nDATABASE_USER=x\nPOSTGRES_PASSWORD=x\nNATS_PARTNERS_ISSUER=x\n"
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=x\n\n"
        "export DATABSE_URL=x\nSECRET_KEY='x\nHARKARA_REDIS_URL=x\nHARKARA_JWKS=x\nspeed=2\n"
    )
    assert load({}, dotenv=dotenv) == Settings()
    nothing = "there is no setting {}, so it does nothing: {}"
    assert list(remarks(dotenv)) == [
        f"{dotenv}, line {line}: {told}"
        for line, told in (
            (9, nothing.format("DATABSE_URL", "is DATABASE_URL meant?")),
            (10, "can't be read, and is left out: write NAME=value, and close quotation marks"),
            (11, nothing.format("HARKARA_REDIS_URL", "is REDIS_URL meant?")),
            (12, nothing.format("HARKARA_JWKS", "docs/operations.md has all there are")),
            (13, nothing.format("speed", "is SPEED meant?")),
        )
    ]
    assert list(remarks(tmp_path / "nowhere")) == []
    assert caplog.records == []  # the parser's own warning names no file


def test_a_dotenv_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("harkara.settings.dotenv_values", refused)  # root may read everything
    with pytest.raises(SettingsError, match=r"\.env: can't be read: Permission denied"):
        load({}, dotenv=Path(".env"))


def test_without_anything_the_defaults_hold() -> None:
    assert load({}) == Settings()
    assert Settings().connection_pool == 20
    assert Settings().whatsapp_gateway_url == "http://127.0.0.1:3001"
    assert Settings().log_json is False


def test_the_environment_is_read_by_name() -> None:
    settings = load(
        {
            "DATABASE_URL": "postgres://h/d",
            "CONNECTION_POOL": "7",
            "SPEED": "86400",
            "LOG_JSON": "true",
            "SECRET_KEY": SECRET,
            "PATH": "/bin",
            "database_url": "not this one",
        }
    )
    assert settings.database_url == "postgres://h/d"
    assert settings.connection_pool == 7
    assert settings.speed == 86400.0
    assert settings.log_json is True
    assert settings.secret_key == SECRET


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://h:4222")
    assert load().nats_url == "nats://h:4222"


def test_an_empty_variable_is_none() -> None:
    assert load({"PUBLIC_URL": "", "CONNECTION_POOL": ""}) == Settings()


def test_what_is_named_empty_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("PUBLIC_URL=\nWAHA_URL=http://waha\nEVOLUTION_URL=http://evolution\n")
    monkeypatch.setenv("EVOLUTION_URL", "")
    assert named(file) & {"public_url", "waha_url", "evolution_url"} == {"waha_url"}


def test_overrides_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("NATS_URL=from-file\nREDIS_URL='from file'\nMEDIA_URL=from-file # why\nexport SPEED=2\n")
    settings = load({"REDIS_URL": "from-environment", "MEDIA_URL": "from-environment"}, dotenv=file, media_url="given")
    assert settings.nats_url == "from-file"
    assert settings.redis_url == "from-environment"
    assert settings.media_url == "given"
    assert settings.speed == 2


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert load({}, dotenv=tmp_path / ".env") == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONNECTION_POOL", "many"),
        ("CONNECTION_POOL", "1"),
        ("CONNECTION_POOL", "2.5"),
        ("SPEED", "0"),
        ("SPEED", "-1"),
        ("SPEED", "fast"),
        ("SPEED", "nan"),
        ("SPEED", "inf"),
        ("LOG_JSON", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
        ("ENVIRONMENT", "staging"),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "é" * 15),
        ("PUBLIC_URL", "example.com"),
        ("WHATSAPP_GATEWAY_URL", "ftp://example.com"),
    ],
)
def test_what_is_malformed_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: ") as caught:
        load({name: value})
    assert "\n" not in str(caught.value)


def test_a_secret_that_is_refused_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SECRET_KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_secret_of_thirty_two_bytes_is_enough() -> None:
    assert load({"SECRET_KEY": "é" * 16}).secret_key == "é" * 16


@pytest.mark.parametrize("level", ["debug", "Info", "WARNING"])
def test_log_levels_come_in_any_case(level: str) -> None:
    assert load({"LOG_LEVEL": level}).log_level == level


def test_what_is_missing_is_named() -> None:
    settings = load({"DATABASE_URL": "postgres://h/d"})
    require(settings, "database_url")
    with pytest.raises(SettingsError, match=r"^NATS_URL: is missing"):
        require(settings, "database_url", "nats_url", "redis_url")


def test_settings_shown_by_mistake_show_no_secret() -> None:
    shown = repr(
        load(
            {
                "SECRET_KEY": SECRET,
                "DATABASE_URL": "postgres://me:hunter2@h/d",
                "STRIPE_API_KEY": "sk_hunter2",
                "CONNECTION_POOL": "7",
            }
        )
    )
    assert "hunter2" not in shown
    assert SECRET not in shown
    assert "connection_pool" in shown


OLD, NEW = "an old secret of thirty-two bytes or more", "n" * 40


def test_earlier_keys_follow_the_newest_one() -> None:
    settings = load({"SECRET_KEY": NEW, "SECRET_KEY_PREVIOUS": f" {OLD} ,, {'y' * 32}"})
    assert settings.secret_keys == (NEW, OLD, "y" * 32)
    assert load({"SECRET_KEY": NEW}).secret_keys == (NEW,)
    assert OLD not in repr(settings)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("SECRET_KEY_PREVIOUS", "short"),
        ("SECRET_KEY_PREVIOUS", f"{OLD},short"),
        ("SECRET_KEY_PREVIOUS", ",".join(f"{number}{'k' * 40}" for number in range(5))),
        ("SECRET_KEY_PREVIOUS", NEW),
        ("SUPABASE_JWT_SECRET", "short"),
        ("SUPABASE_URL", "abcdefghijkl.supabase.co"),
    ],
)
def test_keys_that_are_none_stop_the_start_without_being_told(setting: str, text: str) -> None:
    with pytest.raises(SettingsError, match=setting) as told:
        load({"SECRET_KEY": NEW, setting: text})
    assert NEW not in str(told.value)
    assert OLD not in str(told.value)


@pytest.mark.parametrize("name", ["NATS_URL", "NATS_PARTNERS_URL"])
@pytest.mark.parametrize("url", ["nats://h:x", "nats://", "nats://h:4222,h:70000"])
def test_an_address_of_a_broker_that_is_none_is_refused(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: must look like nats://user:password@host:4222"):
        load({name: url})


@pytest.mark.parametrize("url", ["h", "h:4222", "nats://u:p@h", "tls://[::1]:4222, nats://h:4223", "ws://h:8080"])
def test_addresses_of_brokers(url: str) -> None:
    assert load({"NATS_URL": url}).nats_url == url
