"""The pretend model of the bench: the GA Realtime protocol over a hand-written socket, by schedule and without a voice.

It obeys both turn-taking flags in all four combinations, refuses a second response while one is active, and generates four
times faster than speech, in deltas of 100 ms. The conversation: a response of 3.4 s heard to its end, the caller's turn, a response
of 6 s that the caller cuts short after 0.8 to 3.2 s of it were audible, the caller's turn, and so on: one barge-in in about ten
seconds, the agent audible for 54 % of the time. Nearly a third of the barge-ins fall into the generation, the others after it.

Protocol: OpenAI's Realtime documentation
"""

import json
import random
import socket
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from tests.bench.facts import FILTER_MS, Call, Utterance
from tests.bench.loop import Link, Loop, now
from tests.bench.sound import (
    BYTES_PER_LINE_BYTE,
    BYTES_PER_MS,
    CALLER_BASE64,
    CALLER_PLACE,
    DELTA_MS,
    FRAME,
    PCM,
    PCMU,
    RING,
    VOICES,
    code_of_pcm,
    delta,
)
from tests.bench.wire import CLOSE, PING, PONG, TEXT, BrokenFrame, accept_key, frame, split

FASTER = 4
HEARD_OUT_MS = 3_400
CUT_SHORT_MS = 6_000
BARGE_AFTER = (0.8, 3.2)
GREETING_MS = (1_000, 3_400)
GAP = 0.4
CALLER_SPEAKS = 2.05
"""From `speech_started` to `speech_stopped`, the silence window included."""
TRANSCRIBED_AFTER = 0.2

_DELTAS = {(voice, kind): delta(voice, kind) for voice in range(len(VOICES)) for kind in (PCMU, PCM)}
_WORDS = (" of course", " I can", " help you", " with that", " and there", " is a time", " on Tuesday", " at ten")
_USAGE = (
    '{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,'
    '"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":64,"audio_tokens":0,"image_tokens":0}},'
    '"output_token_details":{"text_tokens":30,"audio_tokens":91}}'
)
_RATES = '"rate_limits":[{"name":"tokens","limit":800000,"remaining":795000,"reset_seconds":0.4}]'


class Door(Link):
    """A connection that has not said yet what it wants: a Realtime session, or the carrier's REST."""

    __slots__ = ("_admit", "_got")

    def __init__(self, loop: Loop, sock: socket.socket, admit: Callable[[], Call | None]) -> None:
        super().__init__(loop, sock)
        self._admit, self._got = admit, b""

    def received(self, data: bytes, at: float) -> None:
        self._got += data
        head, blank, rest = self._got.partition(b"\r\n\r\n")
        if not blank:
            return
        request, *lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        path = request.split()[1]
        if b"upgrade" not in headers.get(b"connection", b"").lower():
            return self._answer_rest(path, int(headers.get(b"content-length", b"0")), rest)
        call = self._admit()
        if call is None or not path.startswith(b"/v1/realtime?model=") or b"openai-beta" in headers:
            return self._refuse(b"404 Not Found")
        if not headers.get(b"authorization", b"").startswith(b"Bearer "):
            return self._refuse(b"401 Unauthorized")
        self._loop.forget(self)
        model = Model(self._loop, self.sock, call)
        self.fd = -1
        upgrade = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        )
        model.write(upgrade % accept_key(headers[b"sec-websocket-key"]))
        model.begin()
        if rest:
            model.received(rest, at)

    def _refuse(self, status: bytes) -> None:
        self.write(b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)
        self.close()

    def _answer_rest(self, path: bytes, size: int, body: bytes) -> None:
        """A call as Twilio's REST shows it: completed, for it is asked for only when a call ends."""
        if len(body) < size:
            return
        sid = path.split(b"/")[-1].split(b".")[0]
        call = b'{"sid":"%b","status":"completed","duration":"30","price":null}' % sid
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        self.write(head % len(call) + call)
        self.close()


class Model(Link):
    """One Realtime session."""

    __slots__ = (
        "_appended", "_by_item", "_call", "_dice", "_event", "_frame", "_item", "_offset", "_out_type", "_per_line_byte",
        "_session", "_tail", "_turn", "_turns", "active", "is_configured", "passes_through",
    )  # fmt: skip

    def __init__(self, loop: Loop, sock: socket.socket, call: Call) -> None:
        super().__init__(loop, sock)
        self._call, self._dice = call, random.Random(call.number)
        call.model = self
        self._tail, self._event, self._item = b"", 0, 0
        self._session: dict[str, Any] = {
            "type": "realtime", "object": "realtime.session", "id": f"sess_{call.number:08d}", "model": "gpt-realtime-2.1",
            "expires_at": 1_795_000_000, "output_modalities": ["audio"], "instructions": "", "tools": [], "tool_choice": "auto",
            "audio": {
                "input": {
                    "format": {"type": PCM, "rate": 24_000}, "transcription": None, "noise_reduction": None,
                    "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": True},
                },
                "output": {"format": {"type": PCM, "rate": 24_000}, "voice": "marin", "speed": 1.0},
            },
        }  # fmt: skip
        self._configure({})
        self.is_configured = False
        self.active: Utterance | None = None
        self._by_item: dict[str, Utterance] = {}
        self._appended, self._offset = 0, None
        self._turn = ""

    # ---- what it sends

    def _emit(self, event: str, fields: str) -> bytes:
        self._event += 1
        return frame(f'{{"type":"{event}","event_id":"event_{self._event:09d}",{fields}}}'.encode())

    def begin(self) -> None:
        self.write(self._emit("session.created", f'"session":{json.dumps(self._session)}'))

    def _error(self, code: str, text: str, order: dict[str, Any]) -> None:
        self._call.facts.complaints[f"the model refused {order['type']}: {code}"] += 1
        error = {"type": "invalid_request_error", "code": code, "message": text, "param": None, "event_id": order.get("event_id")}
        self.write(self._emit("error", f'"error":{json.dumps(error)}'))

    def _new_item(self) -> str:
        self._item += 1
        return f"item_{self._call.number:06d}{self._item:010d}"

    def respond(self) -> None:
        """Begin a response, and go on delta by delta."""
        call, number = self._call, len(self._call.utterances)
        if number % 2:
            planned, barge_after = CUT_SHORT_MS, self._dice.uniform(*BARGE_AFTER)
        else:
            planned, barge_after = (HEARD_OUT_MS if number else self._dice.randrange(*GREETING_MS, DELTA_MS)), None
        utterance = Utterance(number, number % len(VOICES), planned * BYTES_PER_MS, barge_after)
        utterance.item, utterance.response = self._new_item(), f"resp_{call.number:06d}{number:06d}"
        call.utterances.append(utterance)
        call.facts.counts["turns"] += 1
        self._by_item[utterance.item] = self.active = utterance
        part = f'"response_id":"{utterance.response}","item_id":"{utterance.item}","output_index":0,"content_index":0'
        item = (
            f'{{"id":"{utterance.item}","object":"realtime.item","type":"message","status":"in_progress",'
            f'"role":"assistant","content":[]}}'
        )
        self.write(
            self._emit("response.created", f'"response":{self._response(utterance, "in_progress", "null", "null")}')
            + self._emit("rate_limits.updated", _RATES)
            + self._emit("response.output_item.added", f'"response_id":"{utterance.response}","output_index":0,"item":{item}')
            + self._emit("conversation.item.added", f'"previous_item_id":null,"item":{item}')
            + self._emit("response.content_part.added", f'{part},"part":{{"type":"audio","transcript":""}}')
        )
        self._speak(utterance, now())

    def _speak(self, utterance: Utterance, due: float) -> None:
        if self.active is not utterance or self.fd < 0:
            return
        self.write(self._delta(utterance))
        if utterance.sent < utterance.planned:
            due += DELTA_MS / 1_000 / FASTER
            self._loop.at(due, self._speak, utterance, due)
        else:
            self._finish(utterance, "completed", "null")

    def _delta(self, utterance: Utterance) -> bytes:
        self._event += 1
        utterance.sent += DELTA_MS * BYTES_PER_MS
        head = (
            f'{{"type":"response.output_audio.delta","event_id":"event_{self._event:09d}","response_id":"{utterance.response}",'
            f'"item_id":"{utterance.item}","output_index":0,"content_index":0,"delta":"'
        ).encode()
        audio = frame(b'%b%b"}' % (head, _DELTAS[utterance.voice, self._out_type]))
        if not utterance.cut:
            utterance.deltas.append((utterance.sent, now()))
        count = utterance.sent // (DELTA_MS * BYTES_PER_MS)
        if count % 4 != 1:
            return audio
        part = f'"response_id":"{utterance.response}","item_id":"{utterance.item}","output_index":0,"content_index":0'
        return self._emit("response.output_audio_transcript.delta", f'{part},"delta":"{_WORDS[count // 4 % len(_WORDS)]}"') + audio

    def _finish(self, utterance: Utterance, status: str, details: str) -> None:
        self.active = None
        words = "".join(_WORDS[place % len(_WORDS)] for place in range(utterance.sent // (DELTA_MS * BYTES_PER_MS * 4)))
        part = f'"response_id":"{utterance.response}","item_id":"{utterance.item}","output_index":0,"content_index":0'
        item = (
            f'{{"id":"{utterance.item}","object":"realtime.item","type":"message","role":"assistant",'
            f'"status":"{"completed" if status == "completed" else "incomplete"}",'
            f'"content":[{{"type":"output_audio","transcript":"{words}"}}]}}'
        )
        self.write(
            self._emit("response.output_audio.done", part)
            + self._emit("response.output_audio_transcript.done", f'{part},"transcript":"{words}"')
            + self._emit("response.content_part.done", f'{part},"part":{{"type":"audio","transcript":"{words}"}}')
            + self._emit("response.output_item.done", f'"response_id":"{utterance.response}","output_index":0,"item":{item}')
            + self._emit("conversation.item.done", f'"previous_item_id":null,"item":{item}')
            + self._emit("response.done", f'"response":{self._response(utterance, status, details, _USAGE, item)}')
        )
        if utterance.barge_after is None and status == "completed":
            self._loop.after(0.1, self._caller_answers, utterance)

    def _response(self, utterance: Utterance, status: str, details: str, usage: str, item: str = "") -> str:
        return (
            f'{{"object":"realtime.response","id":"{utterance.response}","status":"{status}","status_details":{details},"output":[{item}],'
            f'"conversation_id":"conv_{self._call.number}","output_modalities":["audio"],"max_output_tokens":"inf",'
            f'"audio":{{"output":{{"format":{{"type":"{self._out_type}"}},"voice":"marin"}}}},"usage":{usage},"metadata":null}}'
        )

    # ---- the caller, as its voice detector hears it

    def is_heard(self, utterance: Utterance) -> None:
        """The first audio of an utterance reached the phone."""
        if utterance.barge_after is not None:
            self._loop.after(utterance.barge_after, self._barge_in, utterance)

    def _caller_answers(self, utterance: Utterance) -> None:
        """The caller speaks when the utterance was heard to its end and a little later."""
        if self._call.hung_up or self.fd < 0:
            return
        due = self._call.phone.playout.ends_at + GAP
        if due > now():
            self._loop.at(due, self._caller_answers, utterance)
            return
        difference = utterance.received - utterance.sent
        if difference:
            self._call.facts.counts["lost_out_samples" if difference < 0 else "invented_out_samples"] += abs(difference)
        self._call.facts.heard_ms += utterance.received / BYTES_PER_MS
        self._speech_started()

    def _barge_in(self, utterance: Utterance) -> None:
        if self._call.hung_up or self.fd < 0:
            return
        if self._call.phone.playout.ends_at <= now():
            self._call.facts.complaints["the agent fell silent before it was to be interrupted"] += 1
        self._call.facts.counts["barge_ins"] += 1
        utterance.barged_at = now()
        self._speech_started()
        if self.active is utterance and self._turns.get("interrupt_response"):
            self._cancel(utterance, "turn_detected")

    def _cancel(self, utterance: Utterance, reason: str) -> None:
        """End a running response; one delta was on its way already."""
        late = self._delta(utterance)
        self._call.facts.counts["late_deltas"] += 1
        self.write(late)
        self._finish(utterance, "cancelled", f'{{"type":"cancelled","reason":"{reason}"}}')

    def _speech_started(self) -> None:
        self._turn = self._new_item()
        ms = self._appended // (BYTES_PER_MS * self._per_line_byte)
        self.write(self._emit("input_audio_buffer.speech_started", f'"audio_start_ms":{ms},"item_id":"{self._turn}"'))
        self._loop.after(CALLER_SPEAKS, self._speech_stopped)

    def _speech_stopped(self) -> None:
        if self.fd < 0:
            return
        ms = self._appended // (BYTES_PER_MS * self._per_line_byte)
        self.write(self._emit("input_audio_buffer.speech_stopped", f'"audio_end_ms":{ms},"item_id":"{self._turn}"'))
        self._commit(self._turn)
        if self._turns.get("create_response") and not self._call.hung_up and self.active is None:
            self.respond()

    def _commit(self, turn: str) -> None:
        content = '[{"type":"input_audio","transcript":null}]'
        item = f'{{"id":"{turn}","object":"realtime.item","type":"message","status":"completed","role":"user","content":{content}}}'
        self.write(
            self._emit("input_audio_buffer.committed", f'"previous_item_id":null,"item_id":"{turn}"')
            + self._emit("conversation.item.added", f'"previous_item_id":null,"item":{item}')
            + self._emit("conversation.item.done", f'"previous_item_id":null,"item":{item}')
        )
        if self._session["audio"]["input"].get("transcription"):
            self._loop.after(TRANSCRIBED_AFTER, self._transcribed, turn)

    def _transcribed(self, turn: str) -> None:
        if self.fd >= 0:
            fields = f'"item_id":"{turn}","content_index":0,"transcript":"I would like to come in on Tuesday at ten, please."'
            usage = '"usage":{"type":"duration","seconds":2.0}'
            self.write(self._emit("conversation.item.input_audio_transcription.completed", f"{fields},{usage}"))

    # ---- what it is told

    def received(self, data: bytes, at: float) -> None:
        try:
            messages, self._tail = split(self._tail + data)
        except BrokenFrame as fault:
            raise ConnectionError(f"the model's socket: {fault}") from None
        for opcode, message in messages:
            if opcode == TEXT:
                if b"input_audio_buffer.append" in message:
                    self._append(message, at)
                else:
                    self._told(json.loads(message))
            elif opcode == PING:
                self.write(frame(message, PONG))
            elif opcode == CLOSE:
                self.write(frame(message[:2], CLOSE))
                self.close()
                return

    def ended(self, at: float) -> None:
        if not self._call.hung_up:
            self._call.facts.complaints["the service dropped a model socket"] += 1

    def _append(self, message: bytes, at: float) -> None:
        """Caller audio. The hot path: recognise a sample in the middle, count the rest."""
        key = message.index(b'"audio"')
        begin = message.index(b'"', key + 7) + 1
        end = message.index(b'"', begin)
        quads = (end - begin) // 4
        size = quads * 3 - message.count(b"=", end - 2, end)
        middle = quads // 4 * 2  # even: six bytes from a whole sample on
        if not middle:
            self._appended += size
            return
        six = a2b_base64(message[begin + middle * 4 : begin + middle * 4 + 8])
        place = CALLER_PLACE[six[0] if self.passes_through else code_of_pcm(six[:2])]
        call, whole = self._call, self._frame
        number, within = divmod(self._appended + middle * 3, whole)
        if self._offset is None and place >= 0:
            # What came before the session was ready may have been trimmed: the level says with which frame the audio begins.
            latest = call.frames_sent - 1
            self._offset = latest - (latest - place) % RING - number
            call.facts.counts["trimmed_frames"] += self._offset
            call.frames_arrived = self._offset
        if self._offset is None or (place < 0 and call.hung_up):
            return  # silence of our own making before the caller's first frame, or after the last
        number += self._offset
        if whole // 5 < within < whole * 9 // 10 and place != number % RING:
            number = self._resynchronise(number, place)
        if self.passes_through and quads == 54 and message[begin:end] != CALLER_BASE64[number % RING]:
            call.facts.counts["altered_in_samples"] += FRAME
        self._appended += size
        call.facts.counts["appends"] += 1
        arrived = (self._appended + FILTER_MS * BYTES_PER_MS * self._per_line_byte) // whole + self._offset
        while call.frames_arrived < arrived and call.frames_arrived < call.frames_sent:
            call.facts.inbound.append(at - call.sent_at[call.frames_arrived % len(call.sent_at)])
            call.frames_arrived += 1

    def _resynchronise(self, number: int, place: int) -> int:
        counts = self._call.facts.counts
        if place < 0:
            counts["unknown_in_samples"] += FRAME
            return number
        skipped = (place - number + RING // 2) % RING - RING // 2
        counts["lost_in_samples" if skipped > 0 else "invented_in_samples"] += abs(skipped) * FRAME
        self._offset = (self._offset or 0) + skipped
        return number + skipped

    def _told(self, order: dict[str, Any]) -> None:
        kind = order["type"]
        if kind == "session.update":
            self._configure(order["session"])
            self.is_configured = True
            self.write(self._emit("session.updated", f'"session":{json.dumps(self._session)}'))
        elif kind == "response.create":
            if self.active is not None:
                self._error("conversation_already_has_active_response", f"active response {self.active.response}", order)
            elif not self._call.hung_up:
                self.respond()
        elif kind == "response.cancel":
            if self.active is None:
                self._error("response_cancel_not_active", "Cancellation failed: no active response found", order)
            else:
                self._cancel(self.active, "client_cancelled")
        elif kind == "conversation.item.truncate":
            self._truncate(order)
        elif kind == "conversation.item.create":
            item = json.dumps({"id": self._new_item(), "object": "realtime.item", "status": "completed", **order["item"]})
            self.write(
                self._emit("conversation.item.added", f'"previous_item_id":null,"item":{item}')
                + self._emit("conversation.item.done", f'"previous_item_id":null,"item":{item}')
            )
        elif kind == "conversation.item.delete":
            self.write(self._emit("conversation.item.deleted", f'"item_id":{json.dumps(order["item_id"])}'))
        elif kind == "input_audio_buffer.commit":
            self._commit(self._new_item())
        elif kind == "input_audio_buffer.clear":
            self.write(self._emit("input_audio_buffer.cleared", '"ok":true'))
        else:
            self._error("invalid_value", f"Invalid value: '{kind}'", order)

    def _truncate(self, order: dict[str, Any]) -> None:
        utterance, told = self._by_item.get(order["item_id"]), order["audio_end_ms"]
        if utterance is None:
            self._error("item_not_found", "no such item", order)
        elif told * BYTES_PER_MS > utterance.sent or told < 0:
            sent_ms = utterance.sent // BYTES_PER_MS
            self._error("invalid_value", f"Audio content of {sent_ms} ms is already shorter than {told} ms", order)
        else:
            utterance.told_ms = told
            self._call.settle_truncation(utterance)
            fields = f'"item_id":"{utterance.item}","content_index":0,"audio_end_ms":{told}'
            self.write(self._emit("conversation.item.truncated", fields))

    def _configure(self, change: dict[str, Any]) -> None:
        def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
            return old | {key: merge(old[key], value) if _both(old.get(key), value) else value for key, value in new.items()}

        self._session = merge(self._session, change)
        sound = self._session["audio"]
        self._turns: dict[str, Any] = sound["input"]["turn_detection"] or {}
        self._out_type = sound["output"]["format"]["type"]
        self._per_line_byte = BYTES_PER_LINE_BYTE[sound["input"]["format"]["type"]]
        self.passes_through = self._per_line_byte == 1
        self._frame = FRAME * self._per_line_byte


def _both(old: object, new: object) -> bool:
    """Whether two values are objects to be merged. A format is one value: half of it makes no sense."""
    return isinstance(old, dict) and isinstance(new, dict) and "rate" not in old and "rate" not in new
