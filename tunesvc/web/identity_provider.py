"""A team's OpenID Connect provider: where to send a browser, and who comes back.

The code flow with PKCE, by Authlib. Its packages (`tunesvc[oidc]`) are imported where they are
used. Every request to the provider has a deadline.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import httpx

from tunesvc.errors import TuneError, Unauthenticated

DEADLINE_S = 10.0
METADATA_S = 3600.0
"""Time after which metadata and keys are read again; keys of an unknown id at once."""
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_CLOCK_SKEW_S = 60
_WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """Contents of a browser's cookie while it is at the provider."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> PendingSignIn:
        """Return a new attempt."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    def to_text(self) -> str:
        """Return it as text."""
        return ".".join((self.state, self.nonce, self.verifier))

    @classmethod
    def of_text(cls, text: str) -> PendingSignIn | None:
        """Return the attempt of a text; None if it is none."""
        parts = text.split(".")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


@dataclass(frozen=True)
class ProviderSettings:
    """Registration of this service at a provider.

    Raises:
        TuneError: the packages are missing, or the issuer is not encrypted.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    claim: str = "email"
    """Claim that is a user's name. People must not be able to choose it themselves."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
            raise TuneError(f"--oidc-issuer is an address with https://, not {self.issuer!r}")
        if not self.client_id:
            raise TuneError("--oidc-issuer needs --oidc-client-id, as the provider registered it")
        try:
            import authlib  # noqa: F401  # says early that it is missing
        except ImportError:
            raise TuneError("--oidc-issuer needs a package: pip install 'tunesvc[oidc]'") from None


class IdentityProvider:
    """The provider of some settings. Thread-safe."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._read_at = float("-inf")
        self._metadata: dict[str, Any] = {}
        self._keys: Any = {}

    @property
    def name(self) -> str:
        """Host of the provider, for the button."""
        return urlsplit(self._settings.issuer).hostname or self._settings.issuer

    def address(self, attempt: PendingSignIn, back: str) -> str:
        """Return the address at the provider; `back` is where it sends the browser afterwards."""
        metadata, _ = self._fresh()
        with self._client(back) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(url)

    def user_name(self, attempt: PendingSignIn, code: str, back: str) -> str:
        """Exchange the code, check the identity that comes for it, and return the user's name.

        Raises:
            Unauthenticated: the provider refuses the code, or the identity is not valid.
            TuneError: the provider does not answer.
        """
        claims = self._claims(self._identity(attempt, code, back), attempt)
        name = claims.get(self._settings.claim)
        if not isinstance(name, str) or not name:
            raise Unauthenticated(f"the provider sends no {self._settings.claim!r} for you")
        if self._settings.claim == "email" and claims.get("email_verified") is not True:
            raise Unauthenticated(f"the provider has not verified your address {name!r}")
        return name

    def _identity(self, attempt: PendingSignIn, code: str, back: str) -> str:
        from authlib.common.errors import AuthlibBaseError

        metadata, _ = self._fresh()
        try:
            with self._client(back) as client:
                tokens = client.fetch_token(
                    metadata["token_endpoint"],
                    code=code,
                    code_verifier=attempt.verifier,
                    timeout=DEADLINE_S,
                )
        except AuthlibBaseError as error:
            raise Unauthenticated(f"the provider refuses: {error.error}; sign in again") from None
        except OSError as error:  # also those of requests, on which this client of Authlib is
            raise self._away(error) from None
        return str(tokens.get("id_token", ""))

    def _claims(self, identity: str, attempt: PendingSignIn) -> Mapping[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        registry = jwt.JWTClaimsRegistry(
            leeway=_CLOCK_SKEW_S,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            nonce={"essential": True, "value": attempt.nonce},
            exp={"essential": True},
        )
        for is_last in (False, True):
            _, keys = self._fresh(now=is_last)
            try:
                decoded = jwt.decode(identity, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)
                registry.validate(decoded.claims)
            except (JoseError, ValueError) as error:
                if is_last:  # with the newest keys too
                    text = f"the provider's identity is not valid: {error}; sign in again"
                    raise Unauthenticated(text) from None
                continue
            return dict(decoded.claims)
        raise AssertionError

    def _client(self, back: str) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        return OAuth2Session(
            self._settings.client_id,
            self._settings.client_secret or None,
            token_endpoint_auth_method="client_secret_post"
            if self._settings.client_secret
            else "none",
            scope="openid email profile",
            redirect_uri=back,
            code_challenge_method="S256",
        )

    def _fresh(self, *, now: bool = False) -> tuple[dict[str, Any], Any]:
        """Return metadata and keys."""
        with self._lock:
            if not now and time.monotonic() - self._read_at < METADATA_S:
                return self._metadata, self._keys
        try:
            metadata = _read(
                self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
            )
            keys = _read(metadata["jwks_uri"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise self._away(error) from None
        with self._lock:
            self._metadata, self._keys, self._read_at = metadata, keys, time.monotonic()
        return metadata, keys

    def _away(self, error: Exception) -> TuneError:
        reason = str(error) or type(error).__name__
        return TuneError(f"{self.name} does not answer: {reason}; use a token, or try again later")


def _read(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url, timeout=DEADLINE_S).raise_for_status().json()
    return answer
