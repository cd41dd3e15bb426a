"""The carrier as a process with a speaking caller, run by the runner against a small service: real processes, sockets,
speech.
"""

import asyncio
import wave
from typing import Any

import numpy as np
import pytest

from app.rehearsal.runner import PeerLost, Peers
from app.rehearsal.scenes import BadScene
from tests.rehearsal.small_service import ACCOUNT, BOUND, TOKEN, Service, Socket, serving, twiml

SCENE = """
title = "A short word"
[[step]]
wait_for_agent = 500
[[step]]
say = "hello there"
[[step]]
press = "12"
[[step]]
hang_up = true
[expect]
outcome = "completed"
hung_up_by = "caller"
"""

TONE = bytes((0x10, 0x90)) * 2_000
"""500 ms that are loud."""

ROW: dict[str, Any] = {"finished_at": "now", "outcome": "completed", "utterances": [], "tool_invocations": []}


async def speaks(socket: Socket) -> None:
    await socket.play(TONE)
    await socket.mark("said")
    await socket.over.wait()


def peers(service: Service) -> Peers:
    return Peers(service_url=service.url, account_sid=ACCOUNT, auth_token=TOKEN, only_carrier=True)


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(SCENE)
    return str(path)


async def test_a_scene_is_played_by_a_process_and_judged_by_the_row(scene, tmp_path):
    events: list[Any] = []
    asked: list[str] = []

    async def read_row(sid: str) -> dict[str, Any] | None:
        asked.append(sid)
        return None if len(asked) == 1 else ROW

    service = Service({}, speaks)
    async with serving(service), peers(service) as running:
        service.documents["/twilio/voice"] = [service.connect()]
        async with asyncio.timeout(BOUND * 2):
            report = await running.rehearse(scene, read_row=read_row, on_event=events.append, listen=tmp_path / "call.wav")
    assert report.failures == []
    assert report.passed
    assert report.call_sid == asked[0] == service.requests[0].fields["CallSid"]
    assert service.requests[0].signed
    kinds = [event["event"] for event in events]
    assert [kind for kind in kinds if kind in ("placed", "answered", "caller_says", "dtmf", "ended", "report")] == [
        "placed", "answered", "caller_says", "dtmf", "dtmf", "ended", "report",
    ]  # fmt: skip
    assert report.facts["heard_ms"] == 500
    [socket] = service.sockets
    assert [message["dtmf"]["digit"] for message in socket.of("dtmf")] == ["1", "2"]
    with wave.open(str(tmp_path / "call.wav")) as file:
        samples = np.frombuffer(file.readframes(-1), "<i2").reshape(-1, 2).astype(float)
    assert np.abs(samples[:, 0]).max() > 5_000  # the caller spoke
    assert (np.abs(samples[:, 1]) > 5_000).sum() == len(TONE)  # and heard every sample of the agent


async def test_what_does_not_hold_is_in_the_report(scene):
    async def read_row(sid: str) -> dict[str, Any]:
        return ROW | {"outcome": "failed"}

    service = Service({}, speaks)
    async with serving(service), peers(service) as running:
        service.documents["/twilio/voice"] = [service.connect()]
        async with asyncio.timeout(BOUND * 2):
            report = await running.rehearse(scene, read_row=read_row)
    assert report.failures == ["outcome is 'failed', expected 'completed'"]


async def test_two_scenes_at_once_do_not_mix(scene):
    async def read_row(sid: str) -> dict[str, Any]:
        return ROW

    service = Service({}, speaks)
    heard: list[list[Any]] = [[], []]
    async with serving(service), peers(service) as running:
        service.documents["/twilio/voice"] = [service.connect()]
        async with asyncio.timeout(BOUND * 2):
            one, other = await asyncio.gather(
                *(running.rehearse(scene, read_row=read_row, on_event=events.append) for events in heard)
            )
    assert one.passed and other.passed
    assert {event["call_sid"] for event in heard[0]} == {one.call_sid}
    assert {event["call_sid"] for event in heard[1]} == {other.call_sid}


async def test_a_scene_that_does_not_exist_is_refused_before_anybody_is_called():
    async def read_row(sid: str) -> None:
        return None

    service = Service({"/twilio/voice": [twiml("<Hangup/>")]})
    async with serving(service), peers(service) as running:
        with pytest.raises(BadScene):
            await running.rehearse("no-such-scene", read_row=read_row)
    assert service.requests == []


async def test_a_carrier_that_cannot_start_is_a_lost_peer(monkeypatch, capfd):
    running = Peers(service_url="http://127.0.0.1:9", account_sid=ACCOUNT, auth_token="", only_carrier=True)
    with pytest.raises(PeerLost, match="the pretend carrier did not start"):
        await running.__aenter__()
    assert "TWILIO_AUTH_TOKEN is not set" in capfd.readouterr().err


async def test_a_call_that_cannot_be_placed_is_said_so_and_the_carrier_lives_on(scene, tmp_path):
    async def read_row(sid: str) -> dict[str, Any]:
        return ROW

    mute = tmp_path / "mute.toml"
    mute.write_text(SCENE + '[caller]\nvoice = "nobody"\n')
    service = Service({}, speaks)
    async with serving(service), peers(service) as running, asyncio.timeout(BOUND * 2):
        service.documents["/twilio/voice"] = [service.connect()]
        with pytest.raises(PeerLost, match="could not place the call"):
            await running.rehearse(str(mute), read_row=read_row)
        report = await running.rehearse(scene, read_row=read_row)
    assert report.passed
