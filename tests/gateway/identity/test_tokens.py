"""Who a token says it is, and who is not believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.errors import BadRequest
from gateway.exchange import Exchange, Headers
from gateway.identity import Identity
from gateway.tokens import MAX_TOKEN, load_keys, thumbprint
from tests.clock import Clock

NOW = 1_800_000_000.0
SECRET = "a secret of more than thirty-two bytes"
Private = Ed25519PrivateKey | RSAPrivateKey


def pem(*keys: Private) -> bytes:
    return b"".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys
    )


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def public_key(key: Ed25519PrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    return path


@pytest.fixture
def identity(public_key: Path, clock: Clock) -> Identity:
    jwt_ = config.Jwt(algorithm="EdDSA", key_file=public_key)
    return Identity(config.Identity(cookie="session", jwt=jwt_), (), clock=clock)


def exchange_with(*headers: tuple[bytes, bytes]) -> Exchange:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    fields: Headers = list(headers)
    return Exchange(
        method="GET",
        target=b"/",
        path="/",
        headers=fields,
        host=b"a",
        address="192.0.2.1",
        receive=receive,
        started=0.0,
    )


def user(identity: Identity, token: str | bytes) -> str | None:
    raw = token if isinstance(token, bytes) else token.encode()
    exchange = exchange_with((b"cookie", b"session=" + raw))
    identity.identify(exchange)
    return exchange.user


Sign = Callable[..., str]


@pytest.fixture
def sign(key: Ed25519PrivateKey) -> Sign:
    def make(key: Any = key, algorithm: str = "EdDSA", headers: Any = None, **claims: Any) -> str:
        return jwt.encode({"sub": "u-1", "exp": NOW + 60} | claims, key, algorithm=algorithm, headers=headers)

    return make


# ---- where it stands -------------------------------------------------------------------------


def test_cookie_and_header(identity: Identity, sign: Sign) -> None:
    """A token counts in the cookie, among others, and in the header; several of one user are one."""
    cookie, bearer = sign().encode(), sign(sub="u-2").encode()
    for fields, expected in [
        ([(b"cookie", b"a=b; session=" + cookie + b"; c=d")], "u-1"),
        ([(b"cookie", b"a=b"), (b"cookie", b'session="' + cookie + b'"')], "u-1"),
        ([(b"authorization", b"Bearer " + bearer)], "u-2"),
        ([(b"cookie", b"a=b;session = " + cookie)], "u-1"),  # as upstreams read it
        ([(b"authorization", b"Basic YTpi"), (b"cookie", b"session=" + cookie)], "u-1"),
        ([(b"authorization", b"Bearer wrong"), (b"cookie", b"session=" + cookie)], "u-1"),
        ([(b"cookie", b"session=wrong; session=" + cookie)], "u-1"),
        ([(b"authorization", b"Bearer " + bearer), (b"authorization", b"Bearer " + bearer)], "u-2"),
        ([(b"cookie", b"xsession=" + cookie)], None),
        ([(b"cookie", b"session=")], None),
        ([], None),
    ]:
        exchange = exchange_with(*fields)
        identity.identify(exchange)
        assert exchange.user == expected, fields


def test_nobody_is_two_users(identity: Identity, sign: Sign) -> None:
    """Whichever token the upstream goes by, the limits count that user: two users' tokens are refused."""
    one, other = sign().encode(), sign(sub="u-2").encode()
    for fields in [
        [(b"authorization", b"bearer " + other), (b"cookie", b"session=" + one)],
        [(b"cookie", b"session=" + one + b"; session=" + other)],
        [(b"cookie", b"session=" + one), (b"cookie", b"session =" + other)],
        [(b"cookie", b"; ".join(b"session=%d" % number for number in range(5)))],  # too many to verify
        [(b"cookie", b'session="\\145' + one[1:] + b'"')],  # an escape that an upstream may undo
    ]:
        exchange = exchange_with(*fields)
        with pytest.raises(BadRequest):
            identity.identify(exchange)


def test_without_a_key_nobody_is_known(sign: Sign) -> None:
    """No `jwt` in the config: all are anonymous."""
    assert user(Identity(config.Identity(cookie="session"), ()), sign()) is None


# ---- who is not believed ---------------------------------------------------------------------


def test_signed_by_another(identity: Identity, sign: Sign) -> None:
    """A key of one's own makes nobody."""
    assert user(identity, sign(key=Ed25519PrivateKey.generate())) is None


def test_every_changed_byte_is_noticed(identity: Identity, sign: Sign) -> None:
    """No byte of header, claims or signature can be changed."""
    token = sign()
    body = token.rindex(".")
    for at in range(body + 80):  # the last character of a signature has bits that nobody reads
        other = "A" if token[at] != "A" else "B"
        assert user(identity, token[:at] + other + token[at + 1 :]) is None


def test_algorithm_none(identity: Identity) -> None:
    """An unsigned token is no token (RFC 8725, 2.1)."""
    claims = b64({"sub": "u-1", "exp": NOW + 60})
    for name in ("none", "None", "NONE", "", None):
        for signature in ("", "AAAA"):
            assert user(identity, f"{b64({'alg': name})}.{claims}.{signature}") is None


def test_the_public_key_as_a_secret(identity: Identity, public_key: Path) -> None:
    """HS256 with the bytes of the public key, the classic confusion (RFC 8725, 2.1)."""
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64({'sub': 'u-1', 'exp': NOW + 60})}"
    for secret in (public_key.read_bytes(), public_key.read_bytes().strip()):
        mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
        assert user(identity, f"{signed}.{b64(mac)}") is None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": None},
        {"exp": True},
        {"exp": "9999999999"},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": -1},
        {"nbf": NOW + 1},
        {"nbf": "soon"},
        {"sub": ""},
        {"sub": None},
        {"sub": 5},
        {"sub": "a b"},
        {"sub": "a\nTidegate-User: b"},
        {"sub": "ü"},
        {"sub": "u" * 129},
        {"aud": "another"},
    ],
    ids=str,
)
def test_claims_that_do_not_do(identity: Identity, key: Ed25519PrivateKey, claims: dict[str, Any]) -> None:
    """Expired, not yet valid, meant for another, or a name that fits in no header field."""
    # Signed by hand, since PyJWT won't sign all of these; others would.
    signed = f"{b64({'alg': 'EdDSA'})}.{b64({'sub': 'u-1', 'exp': NOW + 60} | claims)}"
    assert user(identity, f"{signed}.{b64(key.sign(signed.encode()))}") is None


def test_a_token_signed_by_hand_counts(identity: Identity, key: Ed25519PrivateKey) -> None:
    """The table above would show nothing if those were refused for their form."""
    signed = f"{b64({'alg': 'EdDSA'})}.{b64({'sub': 'u-1', 'exp': NOW + 60})}"
    assert user(identity, f"{signed}.{b64(key.sign(signed.encode()))}") == "u-1"


def test_no_expiry(identity: Identity, key: Ed25519PrivateKey) -> None:
    """A token for ever is none."""
    assert user(identity, jwt.encode({"sub": "u-1"}, key, algorithm="EdDSA")) is None


def test_huge_and_deep_tokens(identity: Identity, sign: Sign) -> None:
    """Too long is not even looked at, and nesting breaks nothing."""
    assert user(identity, sign(more="x" * MAX_TOKEN)) is None
    deep = b64(("[" * 1400 + "]" * 1400).encode())
    assert user(identity, f"{deep}.{deep}.AAAA") is None
    assert user(identity, b'{"alg":"EdDSA","kid":' + b"[" * 3000) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(parts=st.lists(st.binary(max_size=40) | st.just(b'{"alg":"EdDSA"}'), max_size=5), raw=st.booleans())
def test_garbage_is_anonymous(identity: Identity, parts: list[bytes], raw: bool) -> None:
    """Whatever is sent, nobody is let in and nothing breaks."""
    token = b".".join(parts) if raw else ".".join(map(b64, parts)).encode()
    try:
        assert user(identity, token) is None
    except BadRequest:
        assert b"\\" in token


# ---- remembered tokens -----------------------------------------------------------------------


def test_a_remembered_token_still_expires(identity: Identity, sign: Sign, clock: Clock) -> None:
    """The memory of verified tokens honours their end."""
    token = sign()
    assert user(identity, token) == "u-1"
    clock.now = NOW + 59
    assert user(identity, token) == "u-1"
    clock.now = NOW + 60
    assert user(identity, token) is None
    assert user(identity, token) is None


def test_a_refused_token_may_become_valid(identity: Identity, sign: Sign, clock: Clock) -> None:
    """The memory of refused tokens is short."""
    token = sign(nbf=NOW + 5)
    assert user(identity, token) is None
    clock.now = NOW + 11
    assert user(identity, token) == "u-1"


# ---- keys ------------------------------------------------------------------------------------


def test_one_key_replaces_another(key: Ed25519PrivateKey, sign: Sign, tmp_path: Path, clock: Clock) -> None:
    """While a file holds two keys, tokens of both count, whether or not they name their key."""
    new = Ed25519PrivateKey.generate()
    path = tmp_path / "keys.pem"
    path.write_bytes(pem(new, key))
    settings_ = config.Jwt(key_file=path)
    assert list(load_keys(settings_)) == [thumbprint(new.public_key()), thumbprint(key.public_key())]
    identity = Identity(config.Identity(cookie="session", jwt=settings_), (), clock=clock)
    assert user(identity, sign()) == "u-1"
    assert user(identity, sign(key=new, headers={"kid": thumbprint(new.public_key())})) == "u-1"
    assert user(identity, sign(headers={"kid": "a name of its own"})) == "u-1"
    assert user(identity, sign(headers={"kid": thumbprint(new.public_key())})) is None
    path.write_bytes(pem(new))
    identity = Identity(config.Identity(cookie="session", jwt=settings_), (), clock=clock)
    assert user(identity, sign()) is None


def test_the_thumbprint_of_rfc_8037() -> None:
    """The published example (RFC 8037, A.3)."""
    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert (
        thumbprint(Ed25519PublicKey.from_public_bytes(raw)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )


def test_rs256_and_hs256(tmp_path: Path, sign: Sign, clock: Clock) -> None:
    """The other algorithms verify their own tokens, and only those."""
    rsa, path = generate_private_key(65537, 2048), tmp_path / "key"
    path.write_bytes(pem(rsa))
    rs = Identity(
        config.Identity(cookie="session", jwt=config.Jwt(algorithm="RS256", key_file=path)), (), clock=clock
    )
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    hs = Identity(
        config.Identity(cookie="session", jwt=config.Jwt(algorithm="HS256", key_file=secret)), (), clock=clock
    )
    tokens = {"rs": sign(key=rsa, algorithm="RS256"), "hs": sign(key=SECRET, algorithm="HS256"), "ed": sign()}
    assert {name: user(rs, token) for name, token in tokens.items()} == {"rs": "u-1", "hs": None, "ed": None}
    assert {name: user(hs, token) for name, token in tokens.items()} == {"rs": None, "hs": "u-1", "ed": None}


def test_key_files_that_do_not_do(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    """A wrong kind, a weak key, none at all: said at once, and without the key."""
    path = tmp_path / "key"
    weak = pem(generate_private_key(65537, 1024))  # noqa: S505 - that is the point
    for algorithm, content, said in [
        ("EdDSA", b"", "no PEM public key"),
        ("EdDSA", b"-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----", "can't be read"),
        ("EdDSA", weak, "EdDSA takes"),
        ("RS256", pem(key), "RS256 takes"),
        ("RS256", weak, "2048 bits"),
        ("HS256", pem(key), "not a PEM key"),
        ("HS256", b"short\n", "32 bytes"),
        ("HS256", b"\n", "one secret a line"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said) as caught:
            load_keys(config.Jwt(algorithm=algorithm, key_file=path))  # type: ignore[arg-type]  # of the table
        assert "short" not in str(caught.value)
    settings_ = config.Jwt(key_file=path)
    path.unlink()
    with pytest.raises(OSError, match="key"):
        load_keys(settings_)


# ---- tiers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "tier"),
    [("vip", "vip"), (None, None), (7, None), (["vip"], None), ({"vip": 1}, None), ("x" * 65, None)],
)
def test_the_tier_is_what_the_token_says(identity: Identity, sign: Sign, claim: object, tier: object) -> None:
    """Text that could be a tier's name; anything else is no tier, and the user is the user all the same."""
    for _ in range(2):  # verified, then remembered
        exchange = exchange_with((b"cookie", b"session=" + sign(tier=claim).encode()))
        identity.identify(exchange)
        assert (exchange.user, exchange.tier) == ("u-1", tier)


def test_the_tier_may_stand_in_another_claim(public_key: Path, clock: Clock, sign: Sign) -> None:
    """As `tier_claim` says; a tier in a token that is not valid is nobody's."""
    jwt_ = config.Jwt(algorithm="EdDSA", key_file=public_key)
    identity = Identity(config.Identity(cookie="session", tier_claim="plan", jwt=jwt_), (), clock=clock)
    for token, expected in [
        (sign(plan="gold", tier="vip"), "gold"),
        (sign(plan="gold", exp=NOW - 1), None),
        (sign(plan="gold", key=Ed25519PrivateKey.generate()), None),
    ]:
        exchange = exchange_with((b"cookie", b"session=" + token.encode()))
        identity.identify(exchange)
        assert exchange.tier == expected
