"""The yardstick: a bridge between a phone and a model as tutorials write it, of our own writing.

Two tasks a call, Starlette's WebSocket on one side, the asyncio client of `websockets` on the other, `json` and `base64` of the
standard library between them. The model takes the turns. On `speech_started` it clears the phone and truncates at the latest media
timestamp less the one at which the response began. No signature, no token, no row, no journal, no ledger, no drain; a late delta is
played. For transcoding it resamples with `audioop.ratecv`, which does not filter.

It is served like the service: uvicorn, uvloop, httptools, `websockets-sansio`, no deflate.
"""

import argparse
import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import audioop
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

INSTRUCTIONS = "You are a helpful and bubbly assistant who answers the phone of a small business."
TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="ws://{host}/twilio/media" /></Connect></Response>'


class Resampler:
    """mu-law 8 kHz to PCM16 24 kHz and back, one for each call."""

    def __init__(self) -> None:
        self.up_state = None
        self.down_state = None

    def up(self, payload: str) -> str:
        pcm = audioop.ulaw2lin(base64.b64decode(payload), 2)
        pcm, self.up_state = audioop.ratecv(pcm, 2, 1, 8_000, 24_000, self.up_state)
        return base64.b64encode(pcm).decode()

    def down(self, delta: str) -> str:
        pcm, self.down_state = audioop.ratecv(base64.b64decode(delta), 2, 1, 24_000, 8_000, self.down_state)
        return base64.b64encode(audioop.lin2ulaw(pcm, 2)).decode()


def session(transcode: bool) -> dict[str, object]:
    """The session of the tutorial: the model takes the turns and interrupts itself."""
    sound = {"type": "audio/pcm", "rate": 24_000} if transcode else {"type": "audio/pcmu"}
    turns = {"type": "server_vad", "create_response": True, "interrupt_response": True}
    return {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": INSTRUCTIONS,
        "audio": {"input": {"format": sound, "turn_detection": turns}, "output": {"format": sound, "voice": "marin"}},
    }


def bridge(model_url: str, transcode: bool) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of the media socket."""

    async def media_stream(phone: WebSocket) -> None:
        await phone.accept()
        async with websockets.connect(model_url, additional_headers={"Authorization": "Bearer sk-bench"}, max_size=None) as model:
            await model.send(json.dumps({"type": "session.update", "session": session(transcode)}))
            await model.send(json.dumps({"type": "response.create", "response": {"instructions": "Greet the caller."}}))
            resampler = Resampler()
            stream_sid = None
            latest_timestamp = 0
            response_began_at = None
            last_item = None
            marks: list[str] = []

            async def from_phone() -> None:
                nonlocal stream_sid, latest_timestamp, response_began_at, last_item
                try:
                    async for message in phone.iter_text():
                        data = json.loads(message)
                        if data["event"] == "media":
                            latest_timestamp = int(data["media"]["timestamp"])
                            audio = data["media"]["payload"]
                            if transcode:
                                audio = resampler.up(audio)
                            await model.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                        elif data["event"] == "start":
                            stream_sid = data["start"]["streamSid"]
                            latest_timestamp, response_began_at, last_item = 0, None, None
                        elif data["event"] == "mark" and marks:
                            marks.pop(0)
                except WebSocketDisconnect:
                    pass
                await model.close()

            async def from_model() -> None:
                nonlocal response_began_at, last_item
                async for message in model:
                    data = json.loads(message)
                    if data["type"] == "response.output_audio.delta":
                        delta = resampler.down(data["delta"]) if transcode else data["delta"]
                        await phone.send_json({"event": "media", "streamSid": stream_sid, "media": {"payload": delta}})
                        if data["item_id"] != last_item:
                            response_began_at, last_item = latest_timestamp, data["item_id"]
                        await phone.send_json({"event": "mark", "streamSid": stream_sid, "mark": {"name": "responsePart"}})
                        marks.append("responsePart")
                    elif data["type"] == "input_audio_buffer.speech_started" and marks and response_began_at is not None:
                        heard_ms = latest_timestamp - response_began_at
                        truncate = {"item_id": last_item, "content_index": 0, "audio_end_ms": heard_ms}
                        await model.send(json.dumps({"type": "conversation.item.truncate", **truncate}))
                        await phone.send_json({"event": "clear", "streamSid": stream_sid})
                        marks.clear()
                        last_item, response_began_at = None, None

            with suppress(WebSocketDisconnect):  # the caller hung up in mid-sentence
                await asyncio.gather(from_phone(), from_model())

    return media_stream


def application(host: str, model_url: str, transcode: bool) -> Starlette:
    async def answer(request: Request) -> Response:
        await request.form()
        return Response(TWIML.format(host=host), media_type="text/xml")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready")

    async def status(request: Request) -> Response:
        await request.form()
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/twilio/voice", answer, methods=["POST"]),
            Route("/twilio/status", status, methods=["POST"]),
            Route("/health/ready", ready),
            WebSocketRoute("/twilio/media", bridge(model_url, transcode)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model-url", required=True)
    parser.add_argument("--path", choices=("passthrough", "transcode"), required=True)
    args = parser.parse_args()
    uvicorn.run(
        application(f"127.0.0.1:{args.port}", args.model_url, args.path == "transcode"),
        host="127.0.0.1", port=args.port, loop="uvloop", http="httptools", ws="websockets-sansio",
        ws_per_message_deflate=False, log_level="warning",
    )  # fmt: skip


if __name__ == "__main__":
    main()
