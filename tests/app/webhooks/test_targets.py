"""The addresses that a webhook may reach, and its answers: real sockets and certificates."""

import subprocess
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.settings import Settings
from app.webhooks import targets
from app.webhooks.delivery import Webhooks
from tests.app.conftest import Serve
from tests.app.files import wrong
from tests.app.webhooks.receivers import SECRET, Receiver, add, listening, make_due, waiting
from tests.services import free_port


def test_a_redirect_is_not_followed(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    with listening() as inner:
        receiver.statuses = [302, 307]
        receiver.headers = {"location": inner.url}
        add(database, receiver.url)
        for _ in range(2):
            make_due(database)
            assert webhooks.deliver()
        assert inner.got == []
    assert len(receiver.got) == 2
    assert waiting(database)[0][0] == 2


def test_an_endless_answer_is_not_read(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    def pour(handler: BaseHTTPRequestHandler) -> None:
        while True:
            handler.wfile.write(b"x" * (1 << 16))

    receiver.statuses = [200]
    receiver.after_head = pour
    add(database, receiver.url)
    assert webhooks.deliver()
    assert len(waiting(database)) == 1


def test_a_receiver_that_dawdles_is_left(database: Database, receiver: Receiver) -> None:
    """It sends a byte now and then, so that no single wait is long, and never comes to an end."""
    left = threading.Event()

    def dawdle(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not left.wait(0.05):
                handler.wfile.write(b"x")

    add(database, receiver.url)
    receiver.before_answer = dawdle
    webhooks = Webhooks(database, SECRET, ("127.0.0.1",), try_seconds=0.5)
    assert webhooks.deliver()
    left.set()
    assert waiting(database)[0] == (1, pytest.approx(10, abs=2))


def test_proxies_of_the_environment_are_not_used(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    add(database, receiver.url)
    assert Webhooks(database, SECRET, ("127.0.0.1",)).deliver()
    assert receiver.states == ["queued"]


INNER = [
    "http://127.0.0.1/hook",
    "https://127.0.0.1:8443/hook",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.7/",
    "http://172.16.3.4/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://there-is-none.invalid/",
    "http://" + "a" * 64 + ".example/",
    "http://a..b/",
]
NO_URL = [
    "",
    "hook",
    "//8.8.8.8/hook",
    "http:///hook",
    "ftp://8.8.8.8/",
    "file:///etc/passwd",
    "gopher://8.8.8.8/",
    "http://8.8.8.8:0/",
    "http://8.8.8.8:65536/",
    "http://8.8.8.8:http/",
    "http://[::1/",
    "http://8.8.8.8/\r\nX: y",
    "http://8.8.8.8/\x00",
    "https://user:password@8.8.8.8/",
    "https://user@8.8.8.8/",
    "https://8.8.8.8\\@127.0.0.1/",
]


def test_what_is_inner_or_no_url_is_refused(signing: Settings, serve: Serve) -> None:
    api = serve(signing.model_copy(update={"webhook_hosts": ("receiver.internal",)}))
    body = {"source": str(UUID(int=0))}
    for url in [*INNER, *NO_URL, f"https://8.8.8.8/{'x' * 2000}"]:
        for path in ("/jobs/pretrain", "/jobs/pretrain?dry_run=true"):
            refused = wrong(api.post(path, json=body | {"webhook_url": url}))
            assert list(refused) == ["body.webhook_url"], url
    listed = api.get("/jobs").json()
    assert listed["items"] == []


def test_an_unknown_name_and_an_inner_one_are_refused_with_the_same_words() -> None:
    said = set()
    for host in ("localhost", "there-is-none.invalid"):
        with pytest.raises(ValueError, match="STYLEFILTER_WEBHOOK_HOSTS") as refusal:
            targets.find(f"http://{host}/", ())
        said.add(str(refusal.value).replace(host, "HOST"))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://8.8.8.8/hook", "8.8.8.8"),
        ("http://8.8.8.8:8080", "8.8.8.8"),
        ("https://134744072/", "8.8.8.8"),
        ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111"),
    ],
)
def test_public_addresses_may_be_told(url: str, address: str) -> None:
    assert targets.find(url, ()).addresses == (address,)


def test_a_name_with_an_inner_address_among_others_is_not_public() -> None:
    assert targets.are_public(["8.8.8.8", "2606:4700:4700::1111"])
    assert not targets.are_public(["8.8.8.8", "127.0.0.1"])
    assert not targets.are_public(["::1", "8.8.8.8"])
    assert not targets.are_public([])


def test_the_connection_goes_to_the_addresses_that_were_checked(receiver: Receiver) -> None:
    """The name is found nowhere: whoever looked it up once more would not connect."""
    url = httpx.URL(f"http://there-is-none.invalid:{receiver.port}/hook")
    # Nobody listens at the first.
    checked = targets.Receiver(url, ("127.0.0.2", "127.0.0.1"))
    answer = checked.post(b"{}", {}, tls=httpx.create_ssl_context(), seconds=5)
    assert answer == targets.Answer(204, None)
    assert receiver.got[0].headers["host"] == f"there-is-none.invalid:{receiver.port}"
    assert receiver.got[0].path == "/hook"


def test_an_allowed_host_may_be_anywhere_but_must_be_named_as_it_is() -> None:
    assert "127.0.0.1" in targets.find("http://localhost:1/", ("localhost",)).addresses
    assert targets.find("http://LocalHost/", ("localhost",)).host == "localhost"
    for other in ("http://127.0.0.1/", "http://localhost.localdomain/", "http://127.1/"):
        with pytest.raises(ValueError, match="STYLEFILTER_WEBHOOK_HOSTS"):
            targets.find(other, ("localhost",))
    with pytest.raises(ValueError, match="cannot be found"):
        targets.find("http://there-is-none.invalid/", ("there-is-none.invalid",))


def test_an_address_that_became_an_inner_one_is_not_told(
    database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """As after DNS rebinding: the URL was taken once, and now leads to this machine."""
    add(database, f"http://localhost:{receiver.port}/")
    assert Webhooks(database, SECRET, ()).deliver()
    assert receiver.got == []
    assert waiting(database)[0] == (1, pytest.approx(10, abs=2))
    assert "STYLEFILTER_WEBHOOK_HOSTS" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of the name localhost, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    file = folder / "both.pem"
    file.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return file


@pytest.mark.processes
@pytest.mark.parametrize(
    ("host", "trusted", "arrives"),
    [("localhost", True, True), ("127.0.0.1", True, False), ("localhost", False, False)],
)
def test_the_name_is_verified_though_the_address_is_connected_to(
    database: Database,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    trusted: bool,
    arrives: bool,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with listening(context) as receiver:
        add(database, f"https://{host}:{receiver.port}/")
        assert Webhooks(database, SECRET, ("localhost", "127.0.0.1")).deliver()
        assert len(receiver.got) == arrives
        assert names == ["localhost" if host == "localhost" else None]
    assert waiting(database)[0][0] == (0 if arrives else 1)
