"""Who calls: access keys by Basic, tokens by Bearer, and the endpoint that gives tokens (conversation-api 1.2, 1.3)."""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from switchboard.configuration import AccessKey, Configuration
from switchboard.ids import ProjectId
from switchboard.secrets import KeyRing, is_access_secret
from switchboard_ingress.errors import JSON, Answer, Forbidden, Unauthenticated, success

#: Verified tokens kept in memory; more and all are forgotten.
_MOST_TOKENS: Final = 10_000

NO_CREDENTIALS: Final = 'Bearer realm="switchboard", Basic realm="switchboard"'
WRONG_SECRET: Final = 'Basic realm="switchboard"'
INVALID_TOKEN: Final = 'Bearer error="invalid_token", error_description="The token is not valid"'
#: The lower-case word "expired" is what the official clients look for before they fetch a new token.
EXPIRED_TOKEN: Final = 'Bearer error="invalid_token", error_description="The access token expired"'


class Claims(Struct, frozen=True):
    """What a token says."""

    #: The access key it was given for.
    sub: str
    project_id: str
    #: Unix seconds.
    iat: int
    exp: int
    iss: str = "switchboard"


class _Header(Struct, frozen=True):
    alg: str = "HS256"
    typ: str = "JWT"
    kid: str = ""


_encode: Final = msgspec.json.Encoder().encode
_claims: Final = msgspec.json.Decoder(Claims)
_header: Final = msgspec.json.Decoder(_Header)


class TokenMint:
    """Makes and reads tokens: JWTs signed with HS256 by a key derived from the installation's."""

    def __init__(self, keys: KeyRing, clock: Callable[[], datetime], lifetime_seconds: int) -> None:
        self._keys: Mapping[str, bytes] = keys.derive_all("access-tokens")
        self._newest = next(iter(self._keys))
        self._clock = clock
        self.lifetime_seconds = lifetime_seconds
        self._known: dict[str, Claims] = {}

    def make(self, key: AccessKey) -> str:
        """A new token for an access key."""
        now = int(self._clock().timestamp())
        header = _base64(_encode(_Header(kid=self._newest)))
        claims = _base64(_encode(Claims(key.id, key.project_id, now, now + self.lifetime_seconds)))
        return f"{header}.{claims}.{self._sign(self._newest, f'{header}.{claims}')}"

    def read(self, token: str) -> Claims:
        """What the token says. Raises Unauthenticated for one that is not ours or has expired."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._known) >= _MOST_TOKENS:
                self._known.clear()
            self._known[token] = claims
        if claims.exp <= self._clock().timestamp():
            raise Unauthenticated(EXPIRED_TOKEN)
        return claims

    def _verify(self, token: str) -> Claims:
        try:
            header, claims, signature = token.split(".")
            head = _header.decode(_unbase64(header))
            if head.alg != "HS256" or head.kid not in self._keys:
                raise Unauthenticated(INVALID_TOKEN)
            if not hmac.compare_digest(self._sign(head.kid, f"{header}.{claims}").encode(), signature.encode()):
                raise Unauthenticated(INVALID_TOKEN)
            return _claims.decode(_unbase64(claims))
        except (ValueError, msgspec.DecodeError):
            raise Unauthenticated(INVALID_TOKEN) from None

    def _sign(self, key_id: str, signed: str) -> str:
        return _base64(hmac.digest(self._keys[key_id], signed.encode(), sha256))


class Authenticator:
    """Tells whose a request is."""

    def __init__(self, configuration: Configuration, tokens: TokenMint) -> None:
        self._configuration = configuration
        self._tokens = tokens

    async def check(self, authorization: str, project_id: ProjectId) -> None:
        """Let a request of `project_id` pass. Raises Unauthenticated, or Forbidden for another project's key."""
        scheme, _, credentials = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                claims = self._tokens.read(credentials.strip())
                key = await self._configuration.access_key(claims.sub)
                if key is None:
                    raise Unauthenticated(INVALID_TOKEN)
            case "basic":
                key = await self.basic(credentials)
            case _:
                raise Unauthenticated(NO_CREDENTIALS)
        if key.project_id != project_id:
            raise Forbidden("The credentials are not for this project.")

    async def basic(self, credentials: str) -> AccessKey:
        """The access key that `base64(id:secret)` proves. Raises Unauthenticated."""
        try:
            key_id, colon, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise Unauthenticated(WRONG_SECRET) from None
        if not colon or not key_id or "\x00" in key_id:
            raise Unauthenticated(WRONG_SECRET)
        key = await self._configuration.access_key(key_id)
        if key is None or not is_access_secret(key_id, secret, key.secret_hash):
            raise Unauthenticated(WRONG_SECRET)
        return key

    async def give_token(self, authorization: str, form: bytes) -> Answer:
        """The token endpoint: a new token for an access key, or an error with OAuth's names."""
        scheme, _, credentials = authorization.partition(" ")
        fields = parse_qs(form.decode(errors="replace"))
        try:
            if scheme.lower() != "basic":
                raise Unauthenticated(WRONG_SECRET)
            key = await self.basic(credentials.strip())
        except Unauthenticated as error:
            return _oauth_error(401, "invalid_client", "The client credentials are not valid.", error.headers)
        if fields.get("grant_type") != ["client_credentials"]:
            return _oauth_error(400, "unsupported_grant_type", "grant_type must be client_credentials.", (JSON,))
        return success(
            {
                "access_token": self._tokens.make(key),
                "expires_in": self._tokens.lifetime_seconds - 1,
                "scope": "",
                "token_type": "bearer",
            }
        )


def _oauth_error(status: int, error: str, description: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
    return Answer(_encode({"error": error, "error_description": description}), status, headers)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
