"""Where a server listens, and whose forwarded headers it believes."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.accounts import Team, make_team
from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.queries.operations.audit_entries import list_audit
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding

HERE = Path(__file__)


def test_loopback_needs_nothing() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        Binding(host).check(has_accounts=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "tune.example.org"])  # noqa: S104
def test_other_addresses_need_encryption_and_accounts(host: str) -> None:
    with pytest.raises(TuneError, match="--tls-cert and --tls-key, or --behind-proxy"):
        Binding(host).check(has_accounts=True)
    for binding in (
        Binding(host, tls_cert=HERE, tls_key=HERE),
        Binding(host, behind_proxy="10.0.0.7"),
    ):
        binding.check(has_accounts=True)
        with pytest.raises(TuneError, match="needs accounts"):
            binding.check(has_accounts=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls_cert": HERE}, "give both --tls-cert and --tls-key"),
        ({"tls_cert": Path("/no/cert"), "tls_key": HERE}, "--tls-cert names /no/cert"),
        ({"behind_proxy": "proxy"}, "--behind-proxy is an address"),
        ({"behind_proxy": "10.0.0.0/99"}, "--behind-proxy is an address"),
        ({"path_prefix": "tune"}, "--path-prefix is a path"),
        ({"path_prefix": "/tune/"}, "--path-prefix is a path"),
        ({"path_prefix": "/../x"}, "--path-prefix is a path"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(TuneError, match=text):
        Binding(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    return make_team(shared_database)


@pytest.fixture(scope="module", params=["127.0.0.1", "10.9.9.9"])
def server(request: pytest.FixtureRequest, team: Team) -> Iterator[DashboardServer]:
    """Behind a proxy on this machine, and behind one elsewhere, so that this machine is not it."""
    binding = Binding(port=0, behind_proxy=request.param, path_prefix="/tune")
    with DashboardServer(team.database, accounts=binding) as server:
        yield server


def _get(server: DashboardServer, path: str, **headers: str) -> httpx.Response:
    at = f"http://127.0.0.1:{server.port}{path}"
    return httpx.get(at, headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_only_the_proxy_is_answered_and_believed(server: DashboardServer, team: Team) -> None:
    token = f"Bearer {team.secrets['admin']}"
    forwarded = {
        "x_forwarded_for": "6.6.6.6, 203.0.113.9",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "tune.example.org",
        "authorization": token,
    }
    answer = _get(server, "/tune/studies", **forwarded)
    if server.binding.behind_proxy == "10.9.9.9":
        assert answer.status_code == 403
        assert "answers its proxy only" in answer.text
        return
    assert answer.status_code == 200
    assert 'href="/tune/studies"' in answer.text
    assert _get(server, "/studies", **forwarded).status_code == 200, "a proxy may strip the prefix"
    api = _get(server, "/tune/api/v1/me", **forwarded)
    assert api.json()["name"] == "admin"
    assert _get(server, "/api/v1/me", **forwarded).json()["name"] == "admin"
    signed_in = httpx.post(
        f"http://127.0.0.1:{server.port}/tune/enter",
        data={"secret": team.secrets["admin"]},
        headers={
            "Origin": "https://tune.example.org",
            "X-Forwarded-Host": "tune.example.org",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
        },
    )
    assert signed_in.status_code == 303
    assert signed_in.headers["location"] == "/tune/studies"
    cookie = signed_in.headers["set-cookie"]
    assert "Secure" in cookie
    assert "Path=/tune/" in cookie
    assert cookie.startswith("tunesvc=")
    (entry,) = list_audit(team.database, limit=1)
    assert entry.address == "203.0.113.9", "the client writes what is before it"


def test_a_form_of_another_site_is_refused_behind_a_proxy(
    server: DashboardServer, team: Team
) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/tune/enter",
        data={"secret": team.secrets["admin"]},
        headers={"Origin": "https://evil.example", "X-Forwarded-Host": "tune.example.org"},
    )
    assert answer.status_code == 403


def test_without_a_proxy_forwarded_headers_count_for_nothing(team: Team) -> None:
    with DashboardServer(team.database, accounts=Binding(port=0)) as server:
        answer = _get(server, "/studies", x_forwarded_host="evil.example")
        assert answer.status_code == 401
        httpx.post(
            f"{server.url}/enter",
            data={"secret": "x"},
            headers={"Origin": server.url, "X-Forwarded-For": "6.6.6.6"},
        )
    (entry,) = list_audit(team.database, limit=1)
    assert entry.address == "127.0.0.1"


def test_small_answers_are_sent_at_once() -> None:
    """The kernel would hold back an answer's second part until the first one is acknowledged."""
    with Binding(port=0).bind() as bound:
        assert bound.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY on no other socket"


def test_it_encrypts_by_itself(team: Team, tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    binding = Binding(port=0, tls_cert=cert, tls_key=key)
    context = ssl.create_default_context(cafile=str(cert))
    with (
        DashboardServer(team.database, accounts=binding) as server,
        httpx.Client(base_url=server.url, verify=context) as client,
    ):
        assert server.url.startswith("https://127.0.0.1:")
        first = client.get("/studies", headers={"Sec-Fetch-Dest": "document"})
        assert "Secure" in first.headers["set-cookie"], "the page to open after signing in"
        form = {"secret": team.secrets["viewer"]}
        answer = client.post("/enter", data=form, headers={"Origin": server.url})
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]
        assert client.get("/studies").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/studies")


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tunesvc test")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    return files
