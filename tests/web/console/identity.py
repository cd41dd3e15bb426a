"""An identity provider that insists on the protocol (OpenID Connect Core 1.0, RFC 6749, RFC 7636), on a real socket.

It shares nothing with the client: signatures are made with `cryptography` alone. `wrong` names what it is to do wrong, once.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

CLIENT, SECRET = "callrow-console", "a secret of both, 32 characters!"
RSA_KEYS = [rsa.generate_private_key(65_537, 2_048) for _ in range(2)]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Refused(Exception):
    """The client did not keep to the protocol. What it did is the message."""


class Identity:
    """The provider. `person` is who is signed in there; `asked` is every request, `complaints` what the client did wrong."""

    def __init__(self, redirect_uri):
        self.redirect_uri = redirect_uri
        self.person = {"sub": "248289761001", "email": "ann@example.com", "email_verified": True, "preferred_username": "ann.smith"}
        self.wrong: set[str] = set()
        self.asked, self.complaints, self.codes = [], [], {}
        self.keys = {"first": RSA_KEYS[0]}
        self.kid, self.algorithm = "first", "RS256"
        self.ec_key = ec.generate_private_key(ec.SECP256R1())
        self.url = ""
        self.metadata = {}

    async def __aenter__(self):
        routes = [
            Route("/realm/.well-known/openid-configuration", self._metadata),
            Route("/realm/authorize", self._authorize),
            Route("/realm/token", self._token, methods=["POST"]),
            Route("/realm/keys", self._keys),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, lifespan="off", log_config=None, loop="none")
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(60):
            while not self._server.started:
                await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/realm"
        return self

    async def __aexit__(self, *_):
        self._server.should_exit = True
        async with asyncio.timeout(60):
            await self._serving

    # ---- what it publishes

    async def _metadata(self, request: Request):
        self.asked.append("metadata")
        if "metadata down" in self.wrong:
            return JSONResponse({}, 502)
        return JSONResponse(
            {
                "issuer": "https://evil.example" if "metadata issuer" in self.wrong else self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": "ftp://127.0.0.1/token" if "metadata address" in self.wrong else f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
                **self.metadata,
            }
        )

    async def _keys(self, request: Request):
        self.asked.append("keys")
        published = []
        for kid, key in self.keys.items():
            public = key.public_key().public_numbers()
            published.append({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": number(public.n), "e": number(public.e)})
        point = self.ec_key.public_key().public_numbers()
        published.append({"kty": "EC", "kid": "curve", "use": "sig", "crv": "P-256", "x": number(point.x), "y": number(point.y)})
        return JSONResponse({"keys": published})

    # ---- what a browser does there

    def sign_in(self, address: str) -> str:
        """A person signs in at the address the browser was sent to; where it is sent back. Raises `Refused`."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/authorize"
        asked = {name: values for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        if any(len(values) > 1 for values in asked.values()):
            raise Refused("a parameter stands there twice")
        one = {name: values[0] for name, values in asked.items()}
        for name, value in {"client_id": CLIENT, "response_type": "code", "redirect_uri": self.redirect_uri}.items():
            if one.get(name) != value:
                raise Refused(name)
        if "openid" not in one.get("scope", "").split():
            raise Refused("scope")
        if one.get("code_challenge_method") != "S256" or len(one.get("code_challenge", "")) != 43:
            raise Refused("code_challenge")
        if len(one.get("state", "")) < 32 or len(one.get("nonce", "")) < 32 or one["state"] == one["nonce"]:
            raise Refused("state or nonce")
        if "denied" in self.wrong:
            return f"{self.redirect_uri}?{urlencode({'error': 'access_denied', 'state': one['state']})}"
        code = secrets.token_urlsafe(24)
        self.codes[code] = {**one, "at": time.time()}
        state = "another state" if "state" in self.wrong else one["state"]
        told = {"code": code, "state": state}
        if "other iss" in self.wrong:
            told["iss"] = "https://evil.example"
        return f"{self.redirect_uri}?{urlencode(told)}"

    async def _authorize(self, request: Request):
        return RedirectResponse(self.sign_in(str(request.url)), 302)

    # ---- what the client does there

    async def _token(self, request: Request):
        self.asked.append("token")
        form = dict(await request.form())
        try:
            begun = self._redeem(form, request.headers.get("authorization", ""))
        except Refused as refused:
            self.complaints.append(str(refused))
            return JSONResponse({"error": "invalid_grant"}, 400)
        access = secrets.token_urlsafe(24)
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.id_token(begun["nonce"], access),
        }
        if "no id_token" in self.wrong:
            del answer["id_token"]
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    def _redeem(self, form, authorization):
        # RFC 6749, 2.3.1: both are form-encoded first. Many clients and providers leave that out; both ways are taken.
        ways = (f"{quote_plus(CLIENT)}:{quote_plus(SECRET)}", f"{CLIENT}:{SECRET}")
        if authorization not in {"Basic " + base64.b64encode(way.encode()).decode() for way in ways}:
            raise Refused("client authentication")
        if form.get("grant_type") != "authorization_code" or form.get("redirect_uri") != self.redirect_uri:
            raise Refused("grant_type or redirect_uri")
        begun = self.codes.pop(form.get("code", ""), None)  # once
        if begun is None:
            raise Refused("code")
        if encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest()) != begun["code_challenge"]:
            raise Refused("code_verifier")
        return begun

    def id_token(self, nonce, access):
        now = int(time.time())
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, "at_hash": encoded(half), **self.person,
        }  # fmt: skip
        changes = {
            "nonce": {"nonce": "x" * 43},
            "audience": {"aud": "somebody-else"},
            "audience with our azp": {"aud": "somebody-else", "azp": CLIENT},
            "audience list without azp": {"aud": ["somebody-else", "and-another"]},
            "issuer": {"iss": "https://evil.example"},
            "expired": {"exp": now - 3_600, "iat": now - 7_200},
            "from the future": {"iat": now + 7_200, "exp": now + 9_000, "nbf": now + 7_200},
            "at_hash": {"at_hash": encoded(b"x" * 16)},
            "sub is a number": {"sub": 5},
            "sub is long": {"sub": "x" * 256},
        }
        for name, change in changes.items():
            if name in self.wrong:
                claims |= change
        for name in ("nonce", "sub", "exp", "aud"):
            if f"no {name}" in self.wrong:
                del claims[name]
        return self._signed(claims)

    def _signed(self, claims):
        header = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}
        if "alg none" in self.wrong:
            header = {"alg": "none"}
        if "alg HS256 with the client secret" in self.wrong or "alg HS256 with the public key" in self.wrong:
            header = {"alg": "HS256", "kid": self.kid}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{encoded(self._signature(text.encode()))}"

    def _signature(self, text):
        import hmac

        if "alg none" in self.wrong:
            return b""
        if "alg HS256 with the client secret" in self.wrong:
            return hmac.digest(SECRET.encode(), text, "sha256")
        if "alg HS256 with the public key" in self.wrong:
            return hmac.digest(number(self.keys[self.kid].public_key().public_numbers().n).encode(), text, "sha256")
        if self.algorithm == "ES256":
            one, other = decode_dss_signature(self.ec_key.sign(text, ec.ECDSA(hashes.SHA256())))
            return one.to_bytes(32, "big") + other.to_bytes(32, "big")
        key = RSA_KEYS[1] if "signature of another key" in self.wrong else self.keys[self.kid]
        signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return bytes([signature[0] ^ 1]) + signature[1:] if "signature" in self.wrong else signature
