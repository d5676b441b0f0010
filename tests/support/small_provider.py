"""A small OpenID Connect provider: signs in everybody at once as the person that a test names."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import RSAKey


@dataclass
class SmallProvider:
    """What it says about the next person."""

    claims: dict[str, Any] = field(default_factory=dict)
    """Claims that differ from the correct ones."""
    client_secret: str = "provider-secret"
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    published: RSAKey | None = None
    """Another key than it signs with."""
    issuer: str = ""
    pending: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI()
        app.get("/.well-known/openid-configuration")(self.metadata)
        app.get("/keys")(self.keys)
        app.get("/authorize")(self.authorize)
        app.post("/token")(self.token)
        return app

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def keys(self) -> dict[str, Any]:
        return {"keys": [(self.published or self.key).as_dict(private=False)]}

    def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        code = f"code-{len(self.pending)}"
        self.pending[code] = asked
        back = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}", 302)

    def token(
        self,
        code: Annotated[str, Form()],
        code_verifier: Annotated[str, Form()],
        client_id: Annotated[str, Form()],
        client_secret: Annotated[str, Form()],
        redirect_uri: Annotated[str, Form()],
    ) -> Response:
        asked = self.pending.pop(code, None)
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != redirect_uri
            or client_secret != self.client_secret
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "sub": "42",
            "exp": int(time.time()) + 300,
            "nonce": asked["nonce"],
            "email": "ada@example.org",
            "email_verified": True,
            **self.claims,
        }
        identity = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return JSONResponse(
            {"access_token": "unused", "token_type": "Bearer", "id_token": identity}
        )


@contextmanager
def serving_provider() -> Iterator[SmallProvider]:
    """Serve one on loopback."""
    provider = SmallProvider()
    config = uvicorn.Config(provider.app(), port=0, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    provider.issuer = f"http://127.0.0.1:{port}"
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(5)
