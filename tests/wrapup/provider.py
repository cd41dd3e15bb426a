"""A provider of the Responses API on loopback: a real server that answers what the test says, and keeps what it was asked."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from openai.types.responses import Response as ResponseObject
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.wrapup.facts import Transcript

WIDE_S = 30.0
Reply = Callable[[Request, dict[str, Any]], Awaitable[Response]]


class Provider:
    """What it is to answer, in order; the last answer is repeated."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.base_url = ""
        self.app = Starlette(routes=[Route("/v1/responses", self._answer, methods=["POST"])])

    def will(self, *replies: Reply) -> None:
        """Set the answers."""
        self.replies = deque(replies)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
        return await reply(request, body)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Provider]:
    """A provider that can be reached."""
    provider = Provider()
    config = uvicorn.Config(provider.app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(WIDE_S):
        while not server.started:
            await asyncio.sleep(0.01)
    provider.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        server.should_exit = True
        async with asyncio.timeout(WIDE_S):
            await task


# ---- answers


def judged(value: Any, *lines: int, confidence: float = 0.9) -> dict[str, Any]:
    """One value of an answer."""
    return {"lines": list(lines), "value": value, "confidence": confidence}


def whole(**parts: Any) -> dict[str, Any]:
    """An answer that says nothing but what is given."""
    fields = ("name", "callback_number", "reason", "intent", "sentiment", "urgency", "disposition", "next_action", "summary")
    return {
        **{field: judged(None) for field in fields},
        "sentiment_course": {"moods": [], "confidence": 0.9},
        "lead": {"reasons": [], "confidence": 0.9},
        "escalation": {"concerns": [], "lines": [], "value": None, "confidence": 0.9},
        **parts,
    }


def completed(text: str, **more: Any) -> dict[str, Any]:
    """A response object as the provider makes it, checked by the provider's own types."""
    return response_object([{"type": "output_text", "text": text, "annotations": [], "logprobs": []}], **more)


def response_object(content: list[dict[str, Any]], status: str = "completed", **more: Any) -> dict[str, Any]:
    """A response object of any status."""
    made: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "test-model",
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content},
        ],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 1_000,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 300,
            "output_tokens_details": {"reasoning_tokens": 100},
            "total_tokens": 1_300,
        },
        **more,
    }
    ResponseObject.model_validate(made)
    return made


def says(answer: dict[str, Any] | str, **more: Any) -> Reply:
    """Answer with this object, or with this text, as the model's words."""
    return body(completed(answer if isinstance(answer, str) else json.dumps(answer), **more))


def body(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Answer with this JSON."""

    async def reply(_request: Request, _body: dict[str, Any]) -> Response:
        return JSONResponse(content, status, headers)

    return reply


def error(status: int, code: str | None = None, headers: dict[str, str] | None = None, kind: str = "error") -> Reply:
    """Answer with an error of the provider's shape."""
    return body({"error": {"message": "no", "type": kind, "param": None, "code": code}}, status, headers)


def lines_of(transcript: Transcript, *speakers: str) -> list[int]:
    """The numbers of the lines of some speakers."""
    return [line.number for line in transcript.lines if line.speaker in speakers and line.text]
