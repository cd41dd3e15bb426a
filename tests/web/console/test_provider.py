"""Sign-in by OpenID Connect, against a provider that insists on the protocol and can be told to break it."""

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from app.errors import BadSetting
from app.settings import Settings
from app.store.console_tables import Role
from app.store.engine import Database
from app.web.console import provider, session
from tests.web.console.identity import CLIENT, RSA_KEYS, SECRET, Identity, Refused
from tests.web.console.office import PUBLIC, Office, set_cookies, words

BACK = f"{PUBLIC}/console/sign-in/provider/return"


@asynccontextmanager
async def both(url, **settings):
    """The provider, and the console that is its client."""
    async with Identity(BACK) as identity:
        database = Database(url)
        known = {"OIDC_ISSUER": identity.url, "OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": SECRET, "OIDC_NAME": "Example ID"}
        office = Office(database, **(known | settings))
        yield identity, office
        await office.close()
        await database.close()


async def there_and_back(identity, browser, path="/console/sign-in/provider"):
    """What a person does: press the button, sign in there, come back."""
    answer = await browser.get(path)
    assert answer.status_code == 303, words(answer)
    back = identity.sign_in(answer.headers["location"])
    assert back.startswith(PUBLIC)
    return await browser.get(back.removeprefix(PUBLIC))


async def test_somebody_signs_in_by_the_provider(sqlite_url):
    async with both(sqlite_url) as (identity, office):
        ann = await office.user("ann", Role.REVIEWER, password=None, email="ann@example.com")
        browser = office.browser()
        page = await browser.get("/console/sign-in?next=/console/account")
        assert "Sign in with Example ID" in words(page)
        assert 'href="/console/sign-in/provider?next=/console/account"' in page.text
        answer = await there_and_back(identity, browser, "/console/sign-in/provider?next=/console/account")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/account")
        assert "max-age=0" in set_cookies(answer)["__Host-callrow-flow"].lower()
        assert "reviewer" in words(await browser.get("/console/account"))
        assert await office.audit() == [("user:ann", "sign_in.done", "ann", {"by": "provider"})]
        (session_,) = await office.console.users.sessions_of(ann.id)
        assert session_.signed_in_by == "provider"
        assert identity.complaints == []
        # and again, when the address has changed at the provider
        identity.person["email"] = "smith@example.com"
        assert (await there_and_back(identity, office.browser())).headers["location"] == "/console/calls"


async def test_the_browser_is_sent_with_everything_the_protocol_asks_for(sqlite_url):
    async with both(sqlite_url) as (_, office):
        answer = await office.browser().get("/console/sign-in/provider")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
        assert asked["redirect_uri"] == BACK
        assert asked["scope"] == "openid email profile"
        assert SECRET not in answer.headers["location"]
        flow = set_cookies(answer)["__Host-callrow-flow"].lower()
        assert all(f"; {word}" in flow for word in ("secure", "httponly", "samesite=lax", "max-age=600"))


REFUSED = {
    "nonce": "id_token: nonce",
    "no nonce": "id_token: nonce",
    "audience": "id_token: aud",
    "audience with our azp": "id_token: aud",
    "audience list without azp": "id_token: aud",
    "no aud": "id_token: aud",
    "issuer": "id_token: iss",
    "expired": "id_token: exp",
    "from the future": "id_token: iat",
    "no exp": "id_token: exp",
    "no sub": "id_token: sub",
    "sub is a number": "id_token: sub",
    "sub is long": "id_token: sub",
    "at_hash": "id_token: at_hash",
    "signature": "id_token: BadSignatureError",
    "signature of another key": "id_token: BadSignatureError",
    "alg none": "id_token: UnsupportedAlgorithmError",
    "alg HS256 with the client secret": "id_token: UnsupportedAlgorithmError",
    "alg HS256 with the public key": "id_token: UnsupportedAlgorithmError",
    "no id_token": "no_id_token",
    "state": "state",
    "other iss": "iss",
    "denied": "denied",
}


@pytest.mark.parametrize("wrong", REFUSED)
async def test_an_answer_that_does_not_hold_signs_nobody_in(sqlite_url, wrong):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        identity.wrong = {wrong}
        browser = office.browser()
        answer = await there_and_back(identity, browser)
        assert answer.status_code == 403
        assert browser.cookie(session.SESSION) is None
        assert (await browser.get("/console/calls")).status_code == 303
        assert await office.console.users.all() == []
        actor, action, subject, details = (await office.audit())[-1]
        assert (actor, action, subject) == ("nobody", "sign_in.refused", None)
        assert details["reason"] == REFUSED[wrong]
        identity.wrong = set()
        assert (await there_and_back(identity, browser)).status_code == 303  # and then it goes on as it should


@pytest.mark.parametrize("wrong", ["metadata issuer", "metadata address", "metadata down"])
async def test_a_provider_that_is_not_what_was_set_is_not_gone_to(sqlite_url, wrong):
    async with both(sqlite_url) as (identity, office):
        identity.wrong = {wrong}
        answer = await office.browser().get("/console/sign-in/provider")
        assert answer.status_code == (503 if wrong == "metadata down" else 403)
        assert "location" not in answer.headers
        identity.wrong = set()
        assert (await office.browser().get("/console/sign-in/provider")).status_code == 303


async def test_a_provider_that_cannot_be_reached_leaves_the_password(sqlite_url):
    async with both(sqlite_url, OIDC_ISSUER="http://127.0.0.1:1") as (_, office):
        await office.user("ann")
        browser = office.browser()
        answer = await browser.get("/console/sign-in/provider")
        assert answer.status_code == 503
        assert "Try again, or sign in with a password." in words(answer)
        assert (await browser.sign_in("ann")).status_code == 303


async def test_what_began_in_another_browser_does_not_end_in_this_one(sqlite_url):
    """Whoever sends somebody a link with their own code does not sign them in to their account (login CSRF)."""
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        evil, victim = office.browser(), office.browser()
        back = identity.sign_in((await evil.get("/console/sign-in/provider")).headers["location"]).removeprefix(PUBLIC)
        for prepare in (None, "/console/sign-in/provider"):
            if prepare:
                await victim.get(prepare)
            answer = await victim.get(back)
            assert answer.status_code == 403
            assert "Begin again." in words(answer)
        assert victim.cookie(session.SESSION) is None
        assert "token" not in identity.asked  # the code is still good for who it is meant for
        assert (await evil.get(back)).status_code == 303


async def test_an_answer_is_good_once(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        browser = office.browser()
        begun = await browser.get("/console/sign-in/provider")
        flow = browser.cookie(session.FLOW)
        back = identity.sign_in(begun.headers["location"]).removeprefix(PUBLIC)
        assert (await browser.get(back)).status_code == 303
        browser.put_cookie(session.FLOW, flow)
        assert (await browser.get(back)).status_code == 403
        assert identity.complaints == ["code"]


async def test_a_flow_is_good_for_ten_minutes_and_cannot_be_written_by_others(sqlite_url, monkeypatch):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        browser = office.browser()
        back = identity.sign_in((await browser.get("/console/sign-in/provider")).headers["location"]).removeprefix(PUBLIC)
        flow = browser.cookie(session.FLOW)
        for forged in (flow[:-2] + "xx", flow[1:], "x", "", "a.b.c"):
            browser.put_cookie(session.FLOW, forged)
            assert (await browser.get(back)).status_code == 403
        browser.put_cookie(session.FLOW, flow)
        monkeypatch.setattr(provider, "FLOW_SECONDS", -1)
        assert (await browser.get(back)).status_code == 403
        assert (await office.audit())[-1][3]["reason"] == "flow"


async def test_new_keys_of_the_provider_are_found(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        assert (await there_and_back(identity, office.browser())).status_code == 303
        identity.keys, identity.kid = {"first": RSA_KEYS[0], "second": RSA_KEYS[1]}, "second"
        assert (await there_and_back(identity, office.browser())).status_code == 403  # looked for a moment ago
        office.console.provider._keys.at -= 61
        assert (await there_and_back(identity, office.browser())).status_code == 303
        before = identity.asked.count("keys")
        identity.kid, identity.keys = "unknown", {"unknown": RSA_KEYS[0]}
        for _ in range(5):
            assert (await there_and_back(identity, office.browser())).status_code == 403
        assert identity.asked.count("keys") == before


async def test_a_signature_on_a_curve_is_read_too(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        identity.algorithm, identity.kid = "ES256", "curve"
        assert (await there_and_back(identity, office.browser())).status_code == 303


@pytest.mark.parametrize(
    ("person", "let_in"),
    [
        ({}, True),
        ({"email_verified": False}, False),
        ({"email_verified": None}, False),
        ({"email_verified": "false"}, False),
        ({"email": "bob@example.com"}, False),
        ({"email": None}, False),
        ({"email": ["ann@example.com"]}, False),
        ({"email": "ann@example.com, evil@example.com"}, False),
    ],
    ids=str,
)
async def test_only_an_address_that_the_provider_has_verified_finds_an_account(sqlite_url, person, let_in):
    async with both(sqlite_url) as (identity, office):
        await office.user("ann", Role.ADMIN, email="ann@example.com")
        identity.person |= person
        answer = await there_and_back(identity, office.browser())
        assert answer.status_code == (303 if let_in else 403)
        if not let_in:
            assert "there is no account for you here" in words(answer)
            assert (await office.audit())[-1][3] == {"by": "provider", "reason": "account"}


async def test_who_is_new_gets_the_role_of_the_settings_and_never_an_account_that_there_is(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="reviewer") as (identity, office):
        await office.user("ann.smith", Role.ADMIN)
        assert (await there_and_back(identity, office.browser())).status_code == 303
        found = {user.name: user.role for user in await office.console.users.all()}
        assert found.pop("ann.smith") is Role.ADMIN
        ((name, role),) = found.items()
        assert name.startswith("ann.smith-")
        assert role is Role.REVIEWER
        assert [line[1] for line in await office.audit()] == ["user.added", "sign_in.done"]


async def test_a_disabled_account_stays_out(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):
        assert (await there_and_back(identity, office.browser())).status_code == 303
        (user,) = await office.console.users.all()
        await office.console.users.disable(user.id)
        assert (await there_and_back(identity, office.browser())).status_code == 403


async def test_nothing_that_the_provider_wrote_is_shown_or_logged(sqlite_url, capsys):
    async with both(sqlite_url) as (identity, office):
        browser = office.browser()
        begun = await browser.get("/console/sign-in/provider")
        state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
        told = f"?error=server_error&error_description=<script>secret words</script>&state={state}"
        answer = await browser.get(f"/console/sign-in/provider/return{told}")
        assert answer.status_code == 403
        printed = capsys.readouterr()
        assert "secret words" not in answer.text + printed.out + printed.err
        assert identity.asked.count("token") == 0


async def test_many_sign_in_at_once(sqlite_url):
    async with both(sqlite_url, OIDC_NEW_USERS="operator") as (identity, office):

        async def one(number):
            return await there_and_back(identity, office.browser())

        assert {answer.status_code for answer in await asyncio.gather(*(one(number) for number in range(10)))} == {303}
        assert len(await office.console.users.all()) == 1


async def test_without_a_provider_there_is_no_door_to_it(sqlite_office):
    browser = sqlite_office.browser()
    assert "Sign in with" not in words(await browser.get("/console/sign-in"))
    for path in ("/console/sign-in/provider", "/console/sign-in/provider/return?code=x&state=y"):
        assert (await browser.get(path)).status_code == 404


async def test_the_double_itself_refuses_what_is_not_the_protocol():
    async with Identity(BACK) as identity:
        with pytest.raises(Refused):
            identity.sign_in(f"{identity.url}/authorize?client_id={CLIENT}&response_type=code&redirect_uri={BACK}&scope=openid")


def test_half_of_the_settings_is_said_to_be_half():
    known = {
        "PUBLIC_URL": PUBLIC, "TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "x", "OPENAI_API_KEY": "x",
    }  # fmt: skip
    with pytest.raises(BadSetting, match="OIDC_CLIENT_SECRET"):
        Settings.from_env({**known, "OIDC_ISSUER": "https://id.example"})
    with pytest.raises(BadSetting, match="must be https"):
        Settings.from_env({**known, "OIDC_ISSUER": "http://id.example", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "x"})
    whole = Settings.from_env({**known, "OIDC_ISSUER": "https://id.example/", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"})
    assert whole.oidc_issuer == "https://id.example/"
    assert "y" not in repr(whole.oidc_client_secret)


def test_the_extra_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(provider, "find_spec", lambda _name: None)
    settings = Settings.from_env(
        {
            "PUBLIC_URL": PUBLIC, "TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "x", "OPENAI_API_KEY": "x",
            "OIDC_ISSUER": "https://id.example", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y",
        }
    )  # fmt: skip
    with pytest.raises(BadSetting, match="authlib is not installed"):
        provider.Provider(settings)
