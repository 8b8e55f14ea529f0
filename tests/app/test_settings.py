"""Settings: read from the environment, passwords from files."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from app.cli.main import cli
from app.settings import Settings, WrongSetting, read_settings
from tests.app.webhooks.receivers import SECRET, SECRET_TEXT


def test_without_any_variable_everything_is_in_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.data_folder == tmp_path / "stylefilter-data"
    assert settings.database == f"sqlite:///{tmp_path}/stylefilter-data/stylefilter.db"
    assert settings.broker == "filesystem://"
    assert settings.data_roots == ()


def test_data_roots_are_separated_by_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFILTER_DATA_ROOTS", "/data/em:/mnt/my cells::")
    assert Settings().data_roots == (Path("/data/em"), Path("/mnt/my cells"))


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("s3://cells", ("s3://cells",)),
        ("/a:s3://cells/em:/b", (Path("/a"), "s3://cells/em", Path("/b"))),
        (
            "https://host:8443/em:http://host:80:/b",
            ("https://host:8443/em", "http://host:80", Path("/b")),
        ),
        ("file:///my%20cells:/b", (Path("/my cells"), Path("/b"))),
    ],
)
def test_data_roots_may_be_addresses(
    monkeypatch: pytest.MonkeyPatch, text: str, roots: tuple[Path | str, ...]
) -> None:
    monkeypatch.setenv("STYLEFILTER_DATA_ROOTS", text)
    assert Settings().data_roots == roots


@pytest.mark.parametrize(
    "text", ["ftp://host/em", "s3://", "s3://user:secret@cells", "https://host/em?a=1"]
)
def test_a_data_root_that_cannot_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("STYLEFILTER_DATA_ROOTS", text)
    with pytest.raises(ValidationError, match="data_roots"):
        Settings()


def test_blank_variables_count_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_PASSWORD_FILE", "DATA_ROOTS", "THREADS"):
        monkeypatch.setenv(f"STYLEFILTER_{name}", "")
    settings = Settings()
    assert (settings.database_password_file, settings.data_roots, settings.threads) == (None, (), 0)
    assert settings.database.startswith("sqlite:///")


@pytest.mark.parametrize("password", ["plain", "p@ss:w/rd#?%", "ü µ"])
def test_passwords_are_filled_in_and_quoted(tmp_path: Path, password: str) -> None:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    settings = Settings(
        database_url="postgresql://style@db.example:5433/filter?sslmode=require",
        database_password_file=file,
        broker_url="redis://redis:6379/1",
        broker_password_file=file,
    )
    url = make_url(settings.database)
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "style", password)
    assert (url.host, url.port, url.database) == ("db.example", 5433, "filter")
    assert url.query == {"sslmode": "require"}
    broker = make_url(settings.broker)
    assert (broker.username or "", broker.password) == ("", password)
    assert (broker.host, broker.port, broker.database) == ("redis", 6379, "1")


def test_a_password_in_the_url_is_replaced_only_by_a_file(tmp_path: Path) -> None:
    url = "postgresql+psycopg://style:old@db/filter"
    assert Settings(database_url=url).database == url
    file = tmp_path / "password"
    file.write_text("new")
    replaced = Settings(database_url=url, database_password_file=file).database
    assert replaced == "postgresql+psycopg://style:new@db/filter"


def test_values_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("THREADS", "-1"), ("DEVICE", "tpu"), ("PREDICT_QUEUE", "0")):
        with monkeypatch.context() as patch:
            patch.setenv(f"STYLEFILTER_{name}", value)
            with pytest.raises(ValidationError, match=name.lower()):
                Settings()


def test_listening_beyond_this_machine_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEFILTER_DATA_FOLDER", str(tmp_path))
    # An address for documentation: no machine has it, so that nothing is started.
    result = CliRunner().invoke(cli, ["up", "--host", "192.0.2.1"])
    assert result.exit_code == 2
    assert "authentication" in result.output


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", "a pass phrase of many words, but no base64", "ü" * 40]
)
def test_a_secret_that_is_none_stops_the_service(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(ValueError, match="whsec_.* 24 "):
        _ = Settings(webhook_secret_file=file).webhook_secret


def test_the_secret_and_the_hosts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET_TEXT)
    monkeypatch.setenv("STYLEFILTER_WEBHOOK_SECRET_FILE", str(file))
    monkeypatch.setenv("STYLEFILTER_WEBHOOK_HOSTS", "Hooks.internal, 10.0.0.7,")
    assert Settings().webhook_secret == SECRET
    assert Settings().webhook_hosts == ("hooks.internal", "10.0.0.7")


def test_each_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFILTER_LANES", "cpu,fast")
    monkeypatch.setenv("STYLEFILTER_THREADS", "-1")
    with pytest.raises(WrongSetting) as wrong:
        read_settings()
    assert "STYLEFILTER_LANES is 'fast'" in str(wrong.value)
    assert "STYLEFILTER_THREADS is '-1'" in str(wrong.value)


@pytest.mark.parametrize("name", ["DATA_ROOTS", "RESULTS_URL"])
@pytest.mark.parametrize(
    "text",
    [
        "s3://user:secret@cells/em",
        "s3://user:secret@ret@cells",
        "s3://user: \nsecret@cells",
        "s3://cells/em?X-Amz-Signature=secret",
    ],
)
def test_no_secret_of_an_address_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"STYLEFILTER_{name}", text)
    with pytest.raises(WrongSetting, match=f"STYLEFILTER_{name} is .*s3://") as wrong:
        read_settings()
    with pytest.raises(ValidationError) as raised:
        Settings()
    for told in (wrong.value, raised.value):
        assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://cells/em", "s3://cells/em"),
        ("/mnt/my results", "/mnt/my results"),
        ("file:///mnt/my%20results", "/mnt/my results"),
        ("", None),
    ],
)
def test_results_have_a_place(monkeypatch: pytest.MonkeyPatch, text: str, place: str) -> None:
    monkeypatch.setenv("STYLEFILTER_RESULTS_URL", text)
    assert Settings().results_url == place


@pytest.mark.parametrize(
    "text", ["https://host/em", "ftp://host/em", "s3://", "s3://user:of/secret@cells"]
)
def test_a_place_that_takes_no_results_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("STYLEFILTER_RESULTS_URL", text)
    with pytest.raises(ValidationError, match="s3://bucket/folder"):
        Settings()
