"""The server's messages, as far as we read them (GA protocol; names as in `openai.types.realtime`). Shapes, nothing that thinks.

Whatever else a message holds is skipped unread.
"""

import msgspec

UNUSED = frozenset(
    {
        "conversation.created",
        "conversation.item.added",
        "conversation.item.created",
        "conversation.item.deleted",
        "conversation.item.done",
        "conversation.item.retrieved",
        "conversation.item.truncated",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.cleared",
        "input_audio_buffer.dtmf_event_received",
        "input_audio_buffer.timeout_triggered",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "mcp_list_tools.in_progress",
        "output_audio_buffer.cleared",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "rate_limits.updated",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.output_audio_transcript.done",
        "response.output_item.added",
        "response.output_text.delta",
        "response.output_text.done",
    }
)
"""Messages that we know and have no use for: not counted as unknown."""


class Kind(msgspec.Struct):
    type: str


class AudioDelta(msgspec.Struct, tag_field="type", tag="response.output_audio.delta"):
    response_id: str
    item_id: str
    delta: str
    content_index: int = 0


class Part(msgspec.Struct):
    response_id: str
    item_id: str
    delta: str = ""
    content_index: int = 0


class CallerItem(msgspec.Struct):
    item_id: str
    audio_start_ms: float | None = None
    audio_end_ms: float | None = None


class Transcript(msgspec.Struct):
    item_id: str
    transcript: str
    usage: msgspec.Raw = msgspec.Raw()


class TranscriptUsage(msgspec.Struct):
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


class Response(msgspec.Struct):
    id: str
    status: str | None = None
    status_details: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()


class OfResponse(msgspec.Struct):
    response: Response


class Fault(msgspec.Struct):
    type: str | None = None
    code: str | None = None
    message: str | None = None
    event_id: str | None = None


class Error(msgspec.Struct):
    error: Fault


class StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: Fault | None = None


class Tokens(msgspec.Struct):
    text_tokens: int | None = None
    audio_tokens: int | None = None
    cached_tokens_details: "Tokens | None" = None


class ResponseUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: Tokens | None = None
    output_token_details: Tokens | None = None


class Item(msgspec.Struct):
    type: str
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class ItemDone(msgspec.Struct):
    response_id: str
    item: Item


class Session(msgspec.Struct):
    session: msgspec.Raw


read_kind = msgspec.json.Decoder(Kind).decode
read_audio_delta = msgspec.json.Decoder(AudioDelta).decode
read_part = msgspec.json.Decoder(Part).decode
read_caller_item = msgspec.json.Decoder(CallerItem).decode
read_transcript = msgspec.json.Decoder(Transcript).decode
read_of_response = msgspec.json.Decoder(OfResponse).decode
read_error = msgspec.json.Decoder(Error).decode
read_item_done = msgspec.json.Decoder(ItemDone).decode
read_session = msgspec.json.Decoder(Session).decode
