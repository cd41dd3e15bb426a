"""A house to knock at: the real doors over a real store, a switchboard that notes what it is asked, a carrier that signs."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx2

from app.call.agent import Agent
from app.settings import Settings
from app.store.calls import Calls
from app.twilio.signature import Signatures
from app.twilio.token import StreamTokens
from app.web import guard, health, phone
from app.web.admission import Admission
from app.web.desk import Desk

PUBLIC = "https://calls.example.com"
ACCOUNT = "AC" + "0" * 32
TOKEN = "the account's auth token"
SID = "CA" + "1" * 32
NOW = 1_795_000_000_000
STANDARD = {
    "AccountSid": ACCOUNT,
    "ApiVersion": "2010-04-01",
    "CallSid": SID,
    "CallStatus": "ringing",
    "Direction": "inbound",
    "From": "+15551230000",
    "To": "+15559870000",
    "FromCity": "",
    "FromCountry": "US",
    "StirVerstat": "TN-Validation-Passed-A",
    "SomethingNewIn2027": "yes & no = +",
}
POSTS = ("voice", "resume?epoch=1", "fallback", "left?call=x", "status", "stream-status")


class Board:
    """Stands for the switchboard. `asked` is all it was asked, in order."""

    def __init__(self):
        self.capacity, self.draining, self.model_available = 100, False, True
        self.slots, self.bridges, self.asked = {}, set(), []

    @property
    def live(self):
        return len(self.slots)

    def admit(self, call_id, epoch):
        self.asked.append(("admit", call_id, epoch))
        if call_id not in self.slots and self.live >= self.capacity:
            return False
        self.slots[call_id] = epoch
        return True

    def release(self, call_id):
        self.asked.append(("release", call_id))
        self.slots.pop(call_id, None)

    def carrier_ended(self, call_id, status):
        self.asked.append(("carrier_ended", call_id, status))
        return call_id in self.bridges

    def moved_on(self, call_id, epoch):
        self.asked.append(("moved_on", call_id, epoch))

    async def media(self, scope, receive, send):
        self.asked.append(("media", scope["path"]))
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})


class Watched:
    """Everything that anybody asks of the store, written down; `broken` makes it fail."""

    def __init__(self, calls):
        self._calls, self.asked, self.broken = calls, [], None

    def age_ms(self, state):
        return self._calls.age_ms(state)

    def __getattr__(self, name):
        method = getattr(self._calls, name)

        async def watched(*args, **kwargs):
            self.asked.append(name)
            if self.broken is not None:
                raise self.broken
            return await method(*args, **kwargs)

        return watched


class House:
    """The doors, and who knocks."""

    def __init__(self, database, **settings):
        self.database = database
        self.now = NOW
        self.settings = Settings.from_env(
            {
                "PUBLIC_URL": PUBLIC,
                "TWILIO_ACCOUNT_SID": ACCOUNT,
                "TWILIO_AUTH_TOKEN": TOKEN,
                "OPENAI_API_KEY": "sk-x",
                "TRANSFER_TO": "sales=+15551230001",
                "CALLS_A_MINUTE_PER_CALLER": "0",
                **settings,
            }
        )
        self.calls = Watched(Calls(database, clock=lambda: datetime.fromtimestamp(self.now / 1_000, UTC)))
        self.board = Board()
        self.others = set()
        self.lag_ms, self.overwhelmed = 0.0, False
        self.desk = Desk(
            settings=self.settings,
            calls=self.calls,
            switchboard=self.board,
            signatures=Signatures(self.settings.auth_tokens, PUBLIC),
            tokens=StreamTokens(*self.settings.auth_tokens),
            agents={name: Agent(name=name, instructions="Be kind.", version="v1") for name in ("front-desk", "sales")},
            clock=lambda: self.now,
            admission=Admission(self.settings, lag_ms=lambda: self.lag_ms, overwhelmed=lambda: self.overwhelmed),
            lives_elsewhere=self._lives_elsewhere,
        )
        self.checks = {}
        self.routes = [*phone.routes(self.desk), *health.routes(self.desk, self.checks)]
        self.app = guard.build(self.routes, https=True)
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://127.0.0.1:5000")

    async def _lives_elsewhere(self, worker):
        return worker in self.others

    async def knock(self, path, *, token=TOKEN, headers=None, signatures=None, method="POST", content=None, **fields):
        """One request of the carrier: signed over the public address, sent to ours. A field of None is left out."""
        form = {name: value for name, value in {**STANDARD, **fields}.items() if value is not None}
        if signatures is None:
            signatures = [sign(f"{PUBLIC}/twilio/{path}", form.items(), token)]
        sent = [("content-type", "application/x-www-form-urlencoded; charset=UTF-8"), *(headers or [])]
        sent += [("x-twilio-signature", signature) for signature in signatures]
        sent = [(name.encode(), value.encode("latin-1")) for name, value in sent]
        body = urlencode(form) if content is None else content
        return await self.client.request(
            method, f"/twilio/{path}", content=body.encode() if isinstance(body, str) else body, headers=sent
        )

    async def twiml(self, path, **fields):
        """What the carrier is told to do: the document's shape, after checking that it is one."""
        answer = await self.knock(path, **fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/xml; charset=utf-8"
        return Document(answer.content)

    async def call(self, sid=SID, *, epoch=1, claimed=True, worker="w1", **fields):
        """A call that came in, and whose stream of that epoch has (or has not) come."""
        await self.twiml("voice", CallSid=sid, **fields)
        state = await self.calls.find_by_sid(sid)
        for number in range(1, epoch):
            await self.calls.claim(state.call_id, number, worker=worker, stream_sid="MZ1")
            await self.calls.advance(state.call_id, number)
        if claimed:
            await self.calls.claim(state.call_id, epoch, worker=worker, stream_sid="MZ1")
        self.board.asked.clear()
        return state.call_id

    async def row(self, sid=SID):
        return await self.calls.row(sid)

    async def count(self):
        return len(await self.calls.latest(10_000))


class Document:
    """A TwiML document, to be asked."""

    def __init__(self, content):
        self.root = ElementTree.fromstring(content)
        assert self.root.tag == "Response"

    @property
    def verbs(self):
        return [verb.tag for verb in self.root]

    @property
    def said(self):
        return " ".join(say.text for say in self.root.iter("Say"))

    @property
    def stream(self):
        """call id, epoch, token of the stream to open."""
        assert self.verbs == ["Connect", "Redirect"], self.verbs
        parameters = {it.get("name"): it.get("value") for it in self.root.iter("Parameter")}
        assert self.root[0].get("action") == self.root[1].text == f"{PUBLIC}/twilio/resume?epoch={parameters['epoch']}"
        return parameters["call_id"], int(parameters["epoch"]), parameters["token"]


def sign(url, pairs, token=TOKEN):
    """The carrier's signature (Twilio's documentation), written here a second time."""
    text = url + "".join(name + value for name, value in sorted(pairs))
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode()
