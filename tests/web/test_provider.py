"""Signing in at a provider, which this test runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.support.small_provider import SmallProvider, serving_provider
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.errors import TuneError
from tunesvc.queries.operations.account_rows import list_users
from tunesvc.queries.operations.audit_entries import list_audit
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding
from tunesvc.web.identity_provider import ProviderSettings
from tunesvc.web.rate_limits import RateLimits


@pytest.fixture(scope="module")
def running() -> Iterator[SmallProvider]:
    with serving_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: SmallProvider) -> SmallProvider:
    running.claims, running.published = {}, None
    return running


@pytest.fixture(scope="module")
def server(shared_database: Database, running: SmallProvider) -> Iterator[DashboardServer]:
    settings = ProviderSettings(running.issuer, "tunesvc", running.client_secret)
    with DashboardServer(shared_database, accounts=Binding(port=0), provider=settings) as server:
        yield server


def sign_in(server: DashboardServer, browser: httpx.Client) -> httpx.Response:
    """Go to the provider and come back."""
    return browser.get(f"{server.url}/provider/start", follow_redirects=True)


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client() as browser:
        yield browser


def test_a_person_signs_in_and_gets_an_account_without_a_role(
    server: DashboardServer,
    provider: SmallProvider,
    browser: httpx.Client,
    shared_database: Database,
) -> None:
    page = browser.get(f"{server.url}/studies")
    assert page.status_code == 401
    assert "Sign in at 127.0.0.1" in page.text
    provider.claims = {"email": "new@example.org"}
    answer = sign_in(server, browser)
    assert answer.status_code == 200
    assert 'content="0; url=/studies"' in answer.text, "no redirect: the cookie is strict"
    assert browser.get(f"{server.url}/studies").status_code == 200
    (row,) = list_users(shared_database, "new@example.org")
    assert (row.is_admin, row.roles) == (False, {})
    (entry,) = list_audit(shared_database, limit=1)
    assert (entry.user_name, entry.action, entry.outcome) == ("new@example.org", "sign in", 303)
    assert provider.client_secret not in page.text + answer.text


def test_a_disabled_user_stays_out(
    server: DashboardServer,
    provider: SmallProvider,
    browser: httpx.Client,
    shared_database: Database,
) -> None:
    with shared_database.engine.begin() as connection:
        accounts.add_user(connection, "gone@example.org")
        accounts.disable_user(connection, "gone@example.org")
    provider.claims = {"email": "gone@example.org"}
    answer = sign_in(server, browser)
    assert answer.status_code == 401
    assert "may not sign in" in answer.text


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"nonce": "another"}, "identity is not valid"),
        ({"aud": "another service"}, "identity is not valid"),
        ({"iss": "https://evil.example"}, "identity is not valid"),
        ({"exp": 1}, "identity is not valid"),
        ({"email_verified": False}, "has not verified"),
        ({"email": ""}, "sends no &#39;email&#39;"),
        ({"email": "<script>"}, "may not sign in"),
    ],
)
def test_a_wrong_identity_is_refused(
    server: DashboardServer,
    provider: SmallProvider,
    browser: httpx.Client,
    claims: dict[str, Any],
    text: str,
) -> None:
    provider.claims = claims
    answer = sign_in(server, browser)
    assert answer.status_code == 401
    assert text in answer.text
    assert browser.get(f"{server.url}/studies").status_code == 401


def test_a_foreign_signature_is_refused(
    server: DashboardServer, provider: SmallProvider, browser: httpx.Client
) -> None:
    provider.published = RSAKey.generate_key(2048, {"kid": "one"})
    server.app.state.provider._read_at = float("-inf")
    assert sign_in(server, browser).status_code == 401
    provider.published = None
    assert sign_in(server, browser).status_code == 200, "new keys are read when the old ones fail"


def test_a_code_of_another_browser_signs_nobody_in(
    server: DashboardServer, provider: SmallProvider, browser: httpx.Client
) -> None:
    begun = browser.get(f"{server.url}/provider/start")
    back = httpx.get(begun.headers["location"]).headers["location"]
    for other in (httpx.Client(), httpx.Client(cookies={"tunesvc_provider": "a.b.c"})):
        with other:
            answer = other.get(back)
            assert answer.status_code == 401
            assert "not begun in this browser" in answer.text
    assert browser.get(back).status_code == 200
    assert browser.get(back).status_code == 401, "an attempt counts once"


def test_attempts_that_fail_are_limited(server: DashboardServer) -> None:
    server.app.state.access.limits = RateLimits(failures=2)
    codes = [httpx.get(f"{server.url}/provider/back?state=x").status_code for _ in range(3)]
    server.app.state.access.limits = RateLimits()
    assert codes == [401, 401, 429]


def test_a_provider_that_is_away_is_named(browser: httpx.Client, shared_database: Database) -> None:
    settings = ProviderSettings("http://127.0.0.1:9", "tunesvc")
    with DashboardServer(shared_database, accounts=Binding(port=0), provider=settings) as server:
        answer = browser.get(f"{server.url}/provider/start")
    assert answer.status_code == 400
    assert "127.0.0.1 does not answer" in answer.text


def test_settings_are_checked() -> None:
    with pytest.raises(TuneError, match="https://"):
        ProviderSettings("http://id.example.org", "tunesvc")
    with pytest.raises(TuneError, match="--oidc-client-id"):
        ProviderSettings("https://id.example.org", "")
    assert "hidden" not in repr(ProviderSettings("https://id.example.org", "tunesvc", "hidden"))
