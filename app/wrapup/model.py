"""The analysis by a model: one request to the Responses API, strict JSON, kept by nobody.

Rule 1: whatever goes wrong is an `AnalysisFault` that says whether again is worth anything; the client's own exceptions, which hold
the request, never leave this file.
Rule 2: short trouble is waited out here, a few times and not for long; long trouble is the durable job's.
Rule 3: what the model answers is proposals. What becomes of them is decided in `admission`, as for every analyzer.
Rule 4: a call in which the caller said nothing is sent to nobody.
"""

import asyncio
import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import msgspec
import stamina

from app.wrapup import answer
from app.wrapup.admission import analysis
from app.wrapup.facts import Analysis, Lists, Transcript
from app.wrapup.faults import (
    AnalysisFault,
    AnalyzerBusy,
    AnalyzerRejected,
    AnalyzerUnreachable,
    AnswerCutOff,
    AnswerRefused,
    AnswerUnreadable,
    QuotaExhausted,
)
from app.wrapup.prompt import Prompt, as_data

if TYPE_CHECKING:
    from openai import APIStatusError

BUSY = (408, 409, 429)
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
FAILED_FOR_NOW = ("server_error", "rate_limit_exceeded")
FAILED_BY_CONTENT = ("invalid_prompt", "bio_policy", "misalignment_policy_violation", "content_filter")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model, where, and how patiently."""

    model: str = "gpt-6-luna"
    base_url: str = "https://api.openai.com/v1"
    api_key: str = field(repr=False)
    reasoning_effort: str | None = "low"
    """None for models that know no effort."""
    max_output_tokens: int = 4_000
    """With the reasoning. An answer that is cut off is asked for once more, with `most_output_tokens`."""
    most_output_tokens: int = 16_000
    request_s: float = 60.0
    """From the first byte of a request to the last of its answer."""
    connect_s: float = 5.0
    attempts: int = 3
    """1 to 10, the first included."""
    first_pause_s: float = 0.5
    """Before the second attempt, doubled before each other, with as much jitter."""
    longest_pause_s: float = 20.0
    """A provider that asks for a longer pause gets it from the durable job."""


# ---- the provider's answer, as far as we read it


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Error(msgspec.Struct):
    code: str | None = None


class _Content(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Content] | None = None


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Reply(msgspec.Struct):
    status: str
    output: list[_Item] = []
    error: _Error | None = None
    incomplete_details: _Reason | None = None
    usage: _Usage | None = None


class ModelAnalyzer:
    """Has calls read by a model. Close it, or use it as an async context."""

    name = "openai"

    def __init__(self, options: ModelOptions, lists: Lists, prompt: Prompt | None = None) -> None:
        # The package is large, and a house without an analysis by a model has no use for it.
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._options, self._lists = options, lists
        self._prompt = prompt or Prompt.read()
        self._shape = answer.shape(lists)
        self._format = {"type": "json_schema", "strict": True, "name": answer.NAME, "schema": answer.schema(self._shape)}
        self._client = AsyncOpenAI(
            api_key=options.api_key,
            base_url=options.base_url,
            max_retries=0,  # rule 2: the client would also wait for an empty account to fill
            # No proxy of the environment, and a redirect would carry the key elsewhere.
            http_client=DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False),
        )
        # The client reads these from the environment, which is the settings' alone.
        self._client.organization = self._client.project = None

    @property
    def prompt_version(self) -> str:
        """The prompt's name and hash."""
        return self._prompt.version

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def analyze(self, transcript: Transcript) -> Analysis:
        """Judge one call.

        Raises:
            AnalysisFault: it could not be had. `retryable` says whether later is worth a try, `retry_after_s` how much later.
        """
        if not transcript.caller_spoke:
            return self._analysis([], transcript, _Usage())
        async for attempt in stamina.retry_context(
            on=self._again,
            attempts=self._options.attempts,
            timeout=None,
            wait_initial=self._options.first_pause_s,
            wait_jitter=self._options.first_pause_s,
            wait_max=self._options.longest_pause_s,
        ):
            with attempt:
                return await self._read(transcript)
        raise AssertionError("retrying ends with a result or an exception")

    def _again(self, fault: Exception) -> bool | float:
        """Whether to try once more now, and after how many seconds, if the provider said it (rule 2)."""
        if not isinstance(fault, AnalysisFault) or not fault.retryable:
            return False
        if fault.retry_after_s is None:
            return True
        return fault.retry_after_s if fault.retry_after_s <= self._options.longest_pause_s else False

    async def _read(self, transcript: Transcript) -> Analysis:
        """One reading; where its answer is cut off, a second with more room."""
        reply = await self._ask(transcript, self._options.max_output_tokens)
        spent = reply.usage or _Usage()
        if _cut_off(reply) and self._options.most_output_tokens > self._options.max_output_tokens:
            reply = await self._ask(transcript, self._options.most_output_tokens)
            usage = reply.usage or _Usage()
            spent = _Usage(spent.input_tokens + usage.input_tokens, spent.output_tokens + usage.output_tokens)
        proposed = answer.proposals(
            _text(reply),
            self._shape,
            transcript,
            self._lists,
            analyzer=self.name,
            model=self._options.model,
            prompt_version=self._prompt.version,
        )
        return self._analysis(proposed, transcript, spent)

    def _analysis(self, proposed: list[Any], transcript: Transcript, spent: _Usage) -> Analysis:
        return analysis(
            proposed,
            transcript,
            self._lists,
            analyzer=self.name,
            model=self._options.model,
            prompt_version=self._prompt.version,
            tokens_in=spent.input_tokens,
            tokens_out=spent.output_tokens,
        )

    async def _ask(self, transcript: Transcript, max_output_tokens: int) -> _Reply:
        request: dict[str, Any] = {
            "model": self._options.model,
            "instructions": self._prompt.text,
            "input": [{"role": "user", "content": as_data(transcript)}],
            "text": {"format": self._format},
            "max_output_tokens": max_output_tokens,
            "store": False,
        }
        if self._options.reasoning_effort is not None:
            request["reasoning"] = {"effort": self._options.reasoning_effort}
        reply = await self._send(request)
        if isinstance(reply, AnalysisFault):
            raise reply
        return reply

    async def _send(self, request: Mapping[str, Any]) -> _Reply | AnalysisFault:
        """The answer; or what to raise, where no exception of the client's can ride along (rule 1)."""
        import httpx2
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        patience = httpx2.Timeout(self._options.request_s, connect=self._options.connect_s)
        try:
            # The client's limit is for each read: a server that sends a byte now and then would hold us for ever.
            async with asyncio.timeout(self._options.request_s):
                raw = await self._client.responses.with_raw_response.create(**request, timeout=patience)
                return msgspec.json.decode(raw.http_response.content, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return AnswerUnreadable("no response object")
        except (APITimeoutError, TimeoutError):
            return AnalyzerUnreachable("no answer in time")
        except APIConnectionError as fault:
            return AnalyzerUnreachable("no connection", type(fault.__cause__).__name__ if fault.__cause__ else None)
        except APIStatusError as fault:
            return _status_fault(fault)
        except (OpenAIError, httpx2.HTTPError) as fault:
            return AnswerUnreadable("no answer that the client can read", type(fault).__name__)


def _status_fault(fault: "APIStatusError") -> AnalysisFault:
    status, code = fault.status_code, fault.code or fault.type
    if fault.code in NO_QUOTA or fault.type in NO_QUOTA:
        return QuotaExhausted("the quota is used up", code, status=status)
    if status in BUSY or status >= 500:
        return AnalyzerBusy("the provider cannot now", code, status=status, retry_after_s=_retry_after_s(fault.response.headers))
    return AnalyzerRejected("the provider does not take the request", code, status=status)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When to come again, in seconds: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _cut_off(reply: _Reply) -> bool:
    return reply.status == "incomplete" and (reply.incomplete_details or _Reason()).reason == "max_output_tokens"


def _text(reply: _Reply) -> str:
    """The answer's text; or the fault that the reply tells of."""
    contents = [content for item in reply.output if item.type == "message" for content in item.content or []]
    if any(content.type == "refusal" for content in contents):
        raise AnswerRefused("the model declines")
    if _cut_off(reply):
        raise AnswerCutOff("the answer is longer than it may be")
    if reply.status == "incomplete":
        raise AnswerRefused("the answer was stopped", (reply.incomplete_details or _Reason()).reason)
    if reply.status == "failed":
        raise _failed((reply.error or _Error()).code)
    if reply.status != "completed":
        raise AnswerUnreadable("not completed", reply.status)
    return "".join(content.text for content in contents if content.type == "output_text")


def _failed(code: str | None) -> AnalysisFault:
    if code in NO_QUOTA:
        return QuotaExhausted("the quota is used up", code)
    if code in FAILED_FOR_NOW or code is None:
        return AnalyzerBusy("the provider failed", code)
    if code in FAILED_BY_CONTENT:
        return AnswerRefused("the provider declines", code)
    return AnalyzerRejected("the provider does not take the request", code)
