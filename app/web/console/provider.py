"""The identity provider: OpenID Connect's authorization code flow with state, nonce and PKCE (OpenID Connect Core 1.0, 3.1).

Rule 1: what a browser brings back is believed only if the flow began in that same browser (a signed cookie, ten minutes), and what
the provider says only if it is signed with a key that it publishes, for us, now, and about this flow.
Rule 2: only asymmetric signatures: a token "signed" with a public key as if it were a secret, or with nothing, is none.
Rule 3: the client secret goes to the token endpoint and nowhere else; addresses that the provider names must be https as well.
Rule 4: authlib is an extra. It is imported when the first sign-in begins, and its absence is said at the start.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import httpx2
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.errors import BadSetting, CallrowError
from app.settings import Settings
from app.store.console_tables import Role
from app.web.console.session import new_word

RETURN = "/console/sign-in/provider/return"
SCOPE = "openid email profile"
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
FLOW_SECONDS = 600
FRESH_SECONDS = 3_600
AGAIN_SECONDS = 60
"""A key that we do not know is looked for at the provider, but no more often than this."""
PATIENCE_SECONDS = 10
LEEWAY_SECONDS = 60
"""How far apart the two clocks may be."""
LONGEST_SUBJECT = 255


class SignInRefused(CallrowError):
    """The provider, or what it said, does not sign anybody in. `reason` is a constant for the log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"no sign-in by the identity provider: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says it is."""

    issuer: str
    subject: str
    email: str | None
    """Only if the provider has verified it."""
    name: str
    """What to call a new account."""


@dataclass(slots=True)
class _Known:
    """Something that the provider publishes, and when we asked for it."""

    value: Mapping[str, Any]
    at: float


class Provider:
    """One identity provider, and us as its client.

    Raises:
        BadSetting: the extra is not installed.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        assert settings.oidc_issuer and settings.oidc_client_id and settings.oidc_client_secret
        if find_spec("authlib") is None:
            remedy = "install the extra `oidc` (pip install 'callrow[oidc]', or scripts/setup), or leave OIDC_ISSUER out"
            raise BadSetting([("OIDC_ISSUER", "is set, and the package authlib is not installed", remedy)])
        self._issuer, self._client_id = settings.oidc_issuer, settings.oidc_client_id
        self._secret = settings.oidc_client_secret.get_secret_value()
        self._return = settings.public_url + RETURN
        self.name = settings.oidc_name or urlsplit(settings.oidc_issuer).hostname or "the identity provider"
        self.new_role = None if settings.oidc_new_users == "none" else Role(settings.oidc_new_users)
        self._flows = URLSafeTimedSerializer(
            self._secret, salt="callrow: a sign-in that has begun 1", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._clock = clock
        self._metadata: _Known | None = None
        self._keys: _Known | None = None

    async def begin(self, back: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie to give it. Raises `SignInRefused`."""
        metadata = await self._published()
        flow = {"state": new_word(), "nonce": new_word(), "verifier": new_word(), "back": back}
        client = self._client()
        url, _ = client.create_authorization_url(
            metadata["authorization_endpoint"], state=flow["state"], nonce=flow["nonce"], code_verifier=flow["verifier"]
        )
        return str(url), str(self._flows.dumps(flow))

    async def finish(self, told: Mapping[str, str], cookie: str | None) -> tuple[Person, str]:
        """Who it is, and where they wanted to go. `told` is the query that the browser brings back.

        Raises:
            SignInRefused: any part of it does not hold (rule 1).
        """
        flow = self._flow(cookie)
        if not told.get("state") or told["state"] != flow["state"]:
            raise SignInRefused("state")
        metadata = await self._published()
        # RFC 9207: which provider the answer is from, where it says so
        if told.get("iss", self._issuer) != self._issuer or (
            metadata.get("authorization_response_iss_parameter_supported") and "iss" not in told
        ):
            raise SignInRefused("iss")
        if told.get("error"):
            raise SignInRefused("denied" if told["error"] == "access_denied" else "provider_error")
        if not told.get("code"):
            raise SignInRefused("code")
        token = await self._redeem(metadata, told["code"], flow["verifier"])
        claims = await self._claims(metadata, token, flow["nonce"])
        return self._person(claims), flow["back"]

    def _flow(self, cookie: str | None) -> Mapping[str, str]:
        try:
            flow = self._flows.loads(cookie or "", max_age=FLOW_SECONDS)
        except BadSignature:  # also one that is too old
            raise SignInRefused("flow") from None
        assert isinstance(flow, dict)
        return flow

    async def _redeem(self, metadata: Mapping[str, Any], code: str, verifier: str) -> Mapping[str, Any]:
        from authlib.integrations.base_client import OAuthError

        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        try:
            async with self._client("client_secret_basic" if "client_secret_basic" in methods else "client_secret_post") as client:
                token = await client.fetch_token(metadata["token_endpoint"], code=code, code_verifier=verifier)
        except OAuthError:
            raise SignInRefused("code") from None
        except (httpx2.HTTPError, ValueError):
            raise SignInRefused("unreachable") from None
        if not isinstance(token.get("id_token"), str):
            raise SignInRefused("no_id_token")
        return dict(token)

    async def _claims(self, metadata: Mapping[str, Any], token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        registry = JWSRegistry(algorithms=[name for name in offered if name in ALGORITHMS], strict_check_header=False)

        def opened(keys: Mapping[str, Any]) -> Any:
            return jwt.decode(token["id_token"], KeySet.import_key_set(keys), registry=registry)  # type: ignore[arg-type]

        try:
            try:
                found = opened(await self._published_keys(metadata))
            except InvalidKeyIdError:  # the provider has changed its keys
                found = opened(await self._published_keys(metadata, unknown=True))
            options = {
                "iss": {"essential": True, "value": self._issuer},
                "aud": {"essential": True, "value": self._client_id},
                "nonce": {"essential": True, "value": nonce},
            }
            parameters = {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")}
            claims = CodeIDToken(found.claims, found.header, options, parameters)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, KeyError, TypeError) as fault:
            claim = getattr(fault, "claim", None)
            raise SignInRefused(f"id_token: {claim or type(fault).__name__}") from None
        return dict(claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
            raise SignInRefused("id_token: sub")
        email = claims.get("email")
        verified = isinstance(email, str) and claims.get("email_verified") in (True, "true")
        names = (claims.get("preferred_username"), email, subject)
        name = next(name for name in names if isinstance(name, str) and name)
        return Person(issuer=self._issuer, subject=subject, email=email if verified else None, name=name)

    # ---- what the provider publishes

    async def _published(self) -> Mapping[str, Any]:
        if self._metadata is None or self._clock() - self._metadata.at > FRESH_SECONDS:
            found = await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if found.get("issuer") != self._issuer:
                raise SignInRefused("metadata: issuer")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                self._check_address(found.get(name))
            self._metadata = _Known(found, self._clock())
        return self._metadata.value

    async def _published_keys(self, metadata: Mapping[str, Any], *, unknown: bool = False) -> Mapping[str, Any]:
        oldest = AGAIN_SECONDS if unknown else FRESH_SECONDS
        if self._keys is None or self._clock() - self._keys.at > oldest:
            self._keys = _Known(await self._get(metadata["jwks_uri"]), self._clock())
        return self._keys.value

    async def _get(self, url: str) -> Mapping[str, Any]:
        try:
            async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False, follow_redirects=False) as client:
                answer = await client.get(url, headers={"accept": "application/json"})
            found = answer.json() if answer.status_code == 200 else None
        except (httpx2.HTTPError, ValueError):
            raise SignInRefused("unreachable") from None
        if not isinstance(found, dict):
            raise SignInRefused("unreachable")
        return found

    def _check_address(self, address: Any) -> None:
        """Rule 3. A provider on this machine, for trying, may name addresses on this machine."""
        if not isinstance(address, str) or urlsplit(address).scheme not in ("https", urlsplit(self._issuer).scheme):
            raise SignInRefused("metadata: address")

    def _client(self, method: str = "client_secret_basic") -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        return AsyncOAuth2Client(
            self._client_id,
            self._secret,
            token_endpoint_auth_method=method,
            scope=SCOPE,
            redirect_uri=self._return,
            code_challenge_method="S256",
            timeout=PATIENCE_SECONDS,
            trust_env=False,
            follow_redirects=False,
        )
