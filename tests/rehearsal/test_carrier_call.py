"""Whole calls of the pretend carrier against a small service: webhooks, documents, streams, the account's updates, the end.

Times are bounds on waiting; what is asserted is order, bytes and counts.
"""

import asyncio
import base64
import io
import wave

import pytest

from app.rehearsal.carrier import CallPlan, Carrier, DialPlan, Number, Scripted, StreamPlan, Tampering
from app.rehearsal.line import FRAME
from tests.rehearsal.small_service import ACCOUNT, BOUND, TOKEN, Service, Socket, eventually, listen, serving, twiml

QUICK = {"callback_delay_ms": 20, "callback_duplicates": 0.0, "recover_ms": 0, "action_after_hang_up": 0.0}
TONE = bytes(range(0x20, 0x60))


def carrier(service: Service, **how) -> Carrier:
    return Carrier(auth_token=TOKEN, account_sid=ACCOUNT, service_url=service.url, **how)


def hangs_up_after(ms: int, audio: bytes = b"") -> Scripted:
    return Scripted(audio=audio, hang_up_after_ms=ms)


async def over(call):
    async with asyncio.timeout(BOUND):
        return await call.ended()


async def test_a_call_is_announced_by_a_signed_form_with_blanks_and_fields_nobody_documents():
    async with serving(Service({"/twilio/voice": [twiml("<Hangup/>")]})) as service, carrier(service) as peer:
        call = await over(await peer.place(plan=CallPlan(**QUICK, from_number="anonymous")))
    [voice] = service.paths("/twilio/voice")
    assert voice.signed
    assert voice.fields["CallSid"] == call.sid
    assert voice.fields["CallStatus"] == "ringing"
    assert voice.fields["From"] == voice.fields["Caller"] == "anonymous"
    assert voice.fields["FromCity"] == voice.fields["AddedWithoutNotice"] == ""
    assert "StirVerstat" not in voice.fields


async def test_a_stream_begins_with_connected_and_start_and_numbers_are_texts():
    service = Service({})
    service.documents["/twilio/voice"] = [""]
    async with serving(service), carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await over(await peer.place(hangs_up_after(400, audio=TONE * 20), CallPlan(**QUICK)))
    [socket] = service.sockets
    assert socket.signed
    connected, start, *rest = socket.received
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start["sequenceNumber"] == "1"
    assert start["start"] == {
        "accountSid": ACCOUNT,
        "streamSid": start["streamSid"],
        "callSid": call.sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t1"},
    }
    assert [message["sequenceNumber"] for message in rest] == [str(n) for n in range(2, 2 + len(rest))]
    media = socket.of("media")
    assert [message["media"]["chunk"] for message in media] == [str(n) for n in range(1, 1 + len(media))]
    assert [message["media"]["timestamp"] for message in media] == [str(20 * n) for n in range(len(media))]
    assert rest[-1]["event"] == "stop"
    assert rest[-1]["stop"] == {"accountSid": ACCOUNT, "callSid": call.sid}
    assert socket.clean
    assert call.violations == []
    assert call.status == "completed"


async def test_the_caller_is_sent_byte_for_byte_and_frame_by_frame():
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await over(await peer.place(hangs_up_after(600, audio=TONE * 50), CallPlan(**QUICK)))
    said = b"".join(base64.b64decode(message["media"]["payload"]) for message in service.sockets[0].of("media"))
    assert len(said) % FRAME == 0
    assert TONE * 50 in said
    assert said in bytes(call.line.recording.said)


async def test_what_the_caller_hears_is_what_was_sent_to_the_byte_and_marks_follow_it():
    played = asyncio.Event()

    async def talk(socket: Socket) -> None:
        for number in range(5):
            await socket.play(bytes([number + 1]) * 700)
            await socket.mark(f"m{number}")
        await socket.wait_for("mark", 5)
        played.set()
        await socket.over.wait()

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await peer.place(plan=CallPlan(**QUICK))
        async with asyncio.timeout(BOUND):
            await played.wait()
        call.hang_up()
        await over(call)
    assert service.sockets[0].marks() == ["m0", "m1", "m2", "m3", "m4"]
    heard = call.line.recording.heard
    assert b"".join(piece for _, piece in heard) == b"".join(bytes([number + 1]) * 700 for number in range(5))
    assert call.streams[0].heard_bytes == 3_500
    assert call.streams[0].echoed == ["m0", "m1", "m2", "m3", "m4"]


async def test_a_clear_gives_the_marks_back_and_the_rest_is_never_heard():
    async def talk(socket: Socket) -> None:
        await socket.play(b"\x11" * 800)
        await socket.mark("heard")
        await socket.wait_for("mark")
        await socket.play(b"\x22" * 8 * 60_000)
        await socket.mark("long")
        await socket.mark("longer")
        await socket.send("clear")
        await socket.wait_for("mark", 3)
        await socket.mark("at once")
        await socket.wait_for("mark", 4)

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        service.documents["/twilio/resume"] = [twiml("<Hangup/>")]
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    [stream] = call.streams
    assert service.sockets[0].marks() == ["heard", "long", "longer", "at once"]
    assert (stream.echoed, stream.returned) == (["heard", "at once"], ["long", "longer"])
    assert stream.heard_bytes + stream.playout.thrown_away == 800 + 8 * 60_000
    assert stream.heard_bytes < 800 + 8 * 30_000
    heard = b"".join(piece for _, piece in call.line.recording.heard)
    assert len(heard) == stream.heard_bytes
    [clear] = [event for event in call.events if event["event"] == "clear"]
    assert clear["unheard_ms"] == stream.playout.thrown_away // 8


async def test_keys_arrive_one_message_each():
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]

        async def script(phone):
            await phone.pause(100)
            await phone.press("5*#")
            phone.hang_up()

        await over(await peer.place(Scripted(script=script), CallPlan(**QUICK)))
    keys = [message["dtmf"] for message in service.sockets[0].of("dtmf")]
    assert keys == [{"track": "inbound_track", "digit": digit} for digit in "5*#"]


@pytest.mark.parametrize(
    ("raw", "code", "about"),
    [
        (b"binary", 31950, "binary"),
        ("no json", 31951, "not a JSON object"),
        ('{"event":"media","media":{"payload":"/w=="}}', 31951, "missing streamSid"),
        ('{"event":"media","streamSid":"MZ0","media":{"payload":"/w=="}}', 31951, "wrong streamSid"),
        ('{"event":"media","streamSid":"SID","media":{"payload":"!!"}}', 31951, "bad base64"),
        ('{"event":"media","streamSid":"SID","media":{"payload":"UklGRgAA"}}', 31951, "file header"),
        ('{"event":"dance","streamSid":"SID"}', 31951, "unknown event"),
        ('{"event":"mark","streamSid":"SID"}', 31951, "without its mark"),
        ('{"event":"clear","streamSid":"SID","now":true}', 31951, "unknown fields"),
    ],
)
async def test_what_the_carrier_would_complain_of_is_reported_and_ignored(raw, code, about):
    async def talk(socket: Socket) -> None:
        message = raw if isinstance(raw, bytes) else raw.replace("SID", socket.stream_sid)
        await (socket.websocket.send_bytes(message) if isinstance(message, bytes) else socket.websocket.send_text(message))
        await socket.mark("still here")
        await socket.wait_for("mark")

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect(action=None)]
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    [violation] = call.violations
    assert violation.code == code
    assert about in violation.about
    assert service.sockets[0].marks() == ["still here"]


async def test_when_the_service_closes_the_stream_the_action_decides_and_the_next_verb_is_not_run():
    async def talk(socket: Socket) -> None:
        await socket.wait_for("media", 2)

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect(after=f"<Redirect>{service.url}/never</Redirect>")]
        service.documents["/twilio/resume"] = [twiml("<Hangup/>")]
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert [request.path for request in service.requests] == ["/twilio/voice", "/twilio/resume", "/twilio/status"]
    assert service.requests[1].signed
    assert service.requests[1].fields["CallStatus"] == "in-progress"
    assert service.requests[1].fields["epoch"] == "1"
    assert [alert.code for alert in call.alerts] == [31921]
    assert service.sockets[0].of("stop") == []


@pytest.mark.parametrize("honours", [True, False])
async def test_without_an_action_or_if_it_is_not_honoured_the_next_verb_runs(honours):
    async def talk(socket: Socket) -> None:
        await socket.wait_for("media", 2)

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        action = None if honours else "/never"
        service.documents["/twilio/voice"] = [service.connect(action, after=f"<Redirect>{service.url}/next?e=1</Redirect>")]
        service.documents["/next"] = [twiml("<Hangup/>")]
        await over(await peer.place(plan=CallPlan(**QUICK, honour_action=honours)))
    assert service.paths("/never") == []
    assert len(service.paths("/next")) == 1


async def test_a_second_stream_begins_from_scratch():
    async def talk(socket: Socket) -> None:
        await socket.wait_for("media", 3)

    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        service.documents["/twilio/resume"] = [service.connect("/twilio/resume?epoch=2"), twiml("<Hangup/>")]
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    first, second = service.sockets
    assert first.stream_sid != second.stream_sid
    assert second.of("start")[0]["start"]["callSid"] == call.sid
    assert second.of("start")[0]["sequenceNumber"] == "1"
    assert second.of("media")[0]["media"]["timestamp"] == "0"
    assert [request.fields.get("epoch") for request in service.paths("/twilio/resume")] == ["1", "2"]


@pytest.mark.parametrize("asks", [True, False])
async def test_after_the_caller_hung_up_the_action_is_asked_only_sometimes_and_says_completed(asks):
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        plan = CallPlan(**(QUICK | {"action_after_hang_up": float(asks)}))
        call = await over(await peer.place(hangs_up_after(100), plan))
    assert [request.fields["CallStatus"] for request in service.paths("/twilio/resume")] == ["completed"] * asks
    assert len(service.paths("/twilio/status")) == 1
    status = service.paths("/twilio/status")[0].fields
    assert (status["CallStatus"], status["CallSid"], status["SequenceNumber"]) == ("completed", call.sid, "0")
    assert int(status["CallDuration"]) >= 1
    assert len(service.sockets[0].of("stop")) == 1


async def test_status_callbacks_come_twice_out_of_order_or_never_as_the_dice_say():
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect(status=True)]
        twice = CallPlan(**(QUICK | {"callback_duplicates": 1.0, "callback_delay_ms": 100}))
        call = await over(await peer.place(hangs_up_after(100), twice))
        delivered = [fields.get("StreamEvent", fields.get("CallStatus")) for _, fields in call.courier.delivered]
        assert sorted(delivered) == ["completed"] * 2 + ["stream-started"] * 2 + ["stream-stopped"] * 2
        service.requests.clear()
        lost = await over(await peer.place(hangs_up_after(100), CallPlan(**(QUICK | {"callback_drops": 1.0}))))
    assert lost.courier.dropped == 3
    assert service.paths("/twilio/status") == []


async def test_a_duplicate_delivery_bears_the_same_idempotency_token():
    async with serving(Service({"/twilio/voice": [twiml("<Hangup/>")]})) as service, carrier(service) as peer:
        await over(await peer.place(plan=CallPlan(**QUICK, duplicate_webhook=True)))
    first, second = service.paths("/twilio/voice")
    assert first.token == second.token is not None
    assert first.fields == second.fields


@pytest.mark.parametrize("how", ["missing", "wrong", "malformed"])
async def test_webhook_and_upgrade_can_be_signed_badly_on_purpose(how):
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        plan = CallPlan(**QUICK, webhook=Tampering(how), stream=StreamPlan(upgrade=Tampering(how)))
        await over(await peer.place(hangs_up_after(100), plan))
    assert not service.paths("/twilio/voice")[0].signed
    assert not service.sockets[0].signed
    assert service.paths("/twilio/status")[0].signed


async def test_a_failing_webhook_goes_to_the_fallback_address_with_code_and_address():
    async with serving(Service({"/fallback": [twiml("<Hangup/>")]})) as service:
        service.statuses["/twilio/voice"] = [503]
        number = Number(voice_url=f"{service.url}/twilio/voice", voice_fallback_url=f"{service.url}/fallback")
        async with carrier(service, number=number) as peer:
            call = await over(await peer.place(plan=CallPlan(**QUICK)))
    [fallback] = service.paths("/fallback")
    assert fallback.signed
    assert (fallback.fields["ErrorCode"], fallback.fields["ErrorUrl"]) == ("11200", f"{service.url}/twilio/voice")
    assert [alert.code for alert in call.violations] == [11200]


@pytest.mark.parametrize(
    ("document", "kind", "code"),
    [("<Response>", "text/xml", 12100), ("<Nothing/>", "text/xml", 12100), ("<Response/>", "application/json", 12300)],
)
async def test_a_document_that_cannot_be_read_ends_in_the_carriers_own_apology(document, kind, code):
    async with serving(Service({"/twilio/voice": [document]})) as service:
        service.content_type = kind
        async with carrier(service, speak=lambda text: b"\x11" * 160) as peer:
            call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert [alert.code for alert in call.violations] == [code]
    assert len(call.announced) == 1
    assert call.line.recording.heard_bytes == 160


async def test_a_sentence_is_heard_and_then_the_document_ends():
    body = '<Say>All lines are busy.</Say><Pause length="0"/><Hangup/>'
    async with (
        serving(Service({"/twilio/voice": [twiml(body)]})) as service,
        carrier(service, speak=lambda text: b"\x11" * (8 * len(text))) as peer,
    ):
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert call.announced == ["All lines are busy."]
    assert call.line.recording.heard_bytes == 8 * len("All lines are busy.")
    assert (call.status, call.violations) == ("completed", [])


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(b"\x00\x10" * 800)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "file", "heard"), [("audio/wav", wav(), 800), ("audio/basic", b"\x11" * 400, 400), ("text/html", b"<p>", 0)]
)
async def test_a_file_is_fetched_and_heard_if_it_is_sound(kind, file, heard):
    service = Service({"/twilio/voice": [twiml("<Play>/bell</Play><Hangup/>")]})
    service.files["/bell"] = (kind, file)
    async with serving(service), carrier(service) as peer:
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert call.line.recording.heard_bytes == heard
    assert [alert.code for alert in call.violations] == ([] if heard else [12300])
    assert service.paths("/bell")[0].signed


async def test_documents_that_lead_in_a_circle_come_to_an_end():
    async with (
        serving(Service({"/twilio/voice": [twiml("<Redirect>/twilio/voice</Redirect>")]})) as service,
        carrier(service) as peer,
    ):
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert [alert.code for alert in call.violations] == [12000]
    assert len(service.paths("/twilio/voice")) == 50


@pytest.mark.parametrize(("reason", "status"), [("busy", "busy"), ("rejected", "no-answer")])
async def test_a_rejected_call_was_never_answered(reason, status):
    async with serving(Service({"/twilio/voice": [twiml(f'<Reject reason="{reason}"/>')]})) as service, carrier(service) as peer:
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert call.status == status
    assert call.answered_at is None
    assert service.paths("/twilio/status")[0].fields["CallStatus"] == status


@pytest.mark.parametrize(
    ("outcome", "status", "bridged"),
    [("answered", "completed", "true"), ("busy", "busy", "false"), ("no-answer", "no-answer", "false")],
)
async def test_dial_rings_and_the_action_hears_how_it_went(outcome, status, bridged):
    body = '<Dial answerOnBridge="true" action="/twilio/resume?epoch=1"><Number>+15550001111</Number></Dial><Say>never</Say>'
    async with (
        serving(Service({"/twilio/voice": [twiml(body)], "/twilio/resume": [twiml("<Hangup/>")]})) as service,
        carrier(service) as peer,
    ):
        dials = {"+15550001111": DialPlan(outcome=outcome, ring_ms=100, talk_ms=100)}
        call = await over(await peer.place(plan=CallPlan(**QUICK, dials=dials)))
    [resume] = service.paths("/twilio/resume")
    assert (resume.fields["DialCallStatus"], resume.fields["DialBridged"]) == (status, bridged)
    assert resume.fields["DialCallSid"] != call.sid
    assert ("DialCallDuration" in resume.fields) == (outcome == "answered")
    assert resume.fields["CallStatus"] == ("in-progress" if outcome == "answered" else "ringing")  # answerOnBridge
    assert [dialed["number"] for dialed in call.dialed] == ["+15550001111"]
    assert call.announced == []


async def test_gathered_keys_go_to_the_action():
    body = '<Gather numDigits="3" timeout="5" action="/keys"><Say>Press a key.</Say></Gather><Hangup/>'

    async def script(phone):
        await phone.pause(60)
        await phone.press("12#")

    async with (
        serving(Service({"/twilio/voice": [twiml(body)], "/keys": [twiml("<Hangup/>")]})) as service,
        carrier(service) as peer,
    ):
        await over(await peer.place(Scripted(script=script), CallPlan(**QUICK)))
    [keys] = service.paths("/keys")
    assert (keys.fields["Digits"], keys.fields["FinishedOnKey"]) == ("12", "#")


async def test_nobody_waits_for_a_key_when_the_caller_has_hung_up():
    body = '<Gather numDigits="3" timeout="30" action="/keys"><Say>Press a key.</Say></Gather>'
    async with serving(Service({"/twilio/voice": [twiml(body)]})) as service, carrier(service) as peer:
        call = await over(await peer.place(hangs_up_after(400), CallPlan(**QUICK)))
        waiting = [task for task in asyncio.all_tasks() if "Queue.get" in repr(task.get_coro())]
    assert (call.status, waiting) == ("completed", [])
    assert service.paths("/keys") == []


async def test_a_call_that_hangs_up_while_another_number_rings_is_over():
    body = '<Dial timeout="30" action="/twilio/resume"><Number>+15550001111</Number></Dial>'
    async with serving(Service({"/twilio/voice": [twiml(body)]})) as service, carrier(service) as peer:
        dials = {"+15550001111": DialPlan(outcome="answered", ring_ms=50, talk_ms=None)}
        call = await over(await peer.place(hangs_up_after(200), CallPlan(**QUICK, dials=dials)))
    assert call.status == "completed"
    assert service.paths("/twilio/resume") == []


async def test_a_broken_connection_is_no_stop_and_what_follows_is_asked():
    async with serving(Service({}, listen)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect(status=True)]
        service.documents["/twilio/resume"] = [twiml("<Hangup/>")]
        call = await peer.place(plan=CallPlan(**QUICK))
        async with asyncio.timeout(BOUND):
            stream = await call.streaming()
        stream.cut()
        await over(call)
    assert service.sockets[0].of("stop") == []
    assert not service.sockets[0].clean
    assert [alert.code for alert in call.alerts] == [31903]
    assert len(service.paths("/twilio/resume")) == 1
    errors = [request for request in service.paths("/twilio/stream-status") if request.fields["StreamEvent"] == "stream-error"]
    assert len(errors) == 1


async def test_a_frozen_stream_neither_reads_nor_writes_until_it_thaws():
    async def talk(socket: Socket) -> None:
        await socket.wait_for("media", 2)
        stream = call.streams[0]
        stream.freeze()
        before = len(socket.of("media"))
        for number in range(10):
            await socket.mark(f"{number}")
        await eventually(lambda: len(call.line.recording.said) >= 8 * 600)  # the line's own clock goes on
        frozen.append((before, len(socket.of("media")), socket.marks()))
        stream.thaw()
        await socket.wait_for("mark", 10)

    frozen: list[tuple[int, int, list[str]]] = []
    async with serving(Service({}, talk)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect(action=None)]
        call = await peer.place(plan=CallPlan(**QUICK))
        await over(call)
    [(before, after, marks)] = frozen
    assert after - before <= 2  # one may have been on its way
    assert marks == []
    assert service.sockets[0].marks() == [str(number) for number in range(10)]


async def test_a_second_socket_with_the_same_token_can_be_tried():
    async with serving(Service({}, listen)) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await peer.place(plan=CallPlan(**QUICK))
        async with asyncio.timeout(BOUND):
            await call.streaming()
            thief = asyncio.create_task(call.second_socket())
            await eventually(lambda: len(service.sockets) == 2 and service.sockets[1].stream_sid)
            service.sockets[1].over.set()
            await thief
        call.hang_up()
        await over(call)
    first, second = service.sockets
    assert first.of("start")[0]["start"]["customParameters"] == second.of("start")[0]["start"]["customParameters"]
    assert first.of("start")[0]["start"]["callSid"] == second.of("start")[0]["start"]["callSid"]


async def test_late_start_garbage_gaps_and_swapped_frames_are_made_on_purpose():
    plan = StreamPlan(late_start_ms=50, garbage=("no json", b"\x00"), skip_every=5, swap_every=7)
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        await over(await peer.place(hangs_up_after(500), CallPlan(**QUICK, stream=plan)))
    [socket] = service.sockets
    assert [message["event"] for message in socket.received[2:4]] == ["garbage", "binary"]
    chunks = [int(message["media"]["chunk"]) for message in socket.of("media")]
    assert not any(chunk % 5 == 0 for chunk in chunks)
    assert chunks.index(7) == chunks.index(8) + 1


async def test_a_script_that_fails_ends_the_call_and_is_heard_of():
    async def script(phone):
        raise ZeroDivisionError

    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await peer.place(Scripted(script=script), CallPlan(**QUICK))
        with pytest.raises(ZeroDivisionError):
            await over(call)
    assert call.status == "completed"


async def test_a_time_limit_ends_the_call():
    async with serving(Service({})) as service, carrier(service) as peer:
        service.documents["/twilio/voice"] = [service.connect()]
        call = await over(await peer.place(plan=CallPlan(**QUICK, time_limit_ms=300)))
    assert call.events[-1]["by"] == "time limit"
    assert len(service.sockets[0].of("stop")) == 1
