"""The environment, read once at the door into one frozen, validated value.

Rule 1: nobody else reads the environment.
Rule 2: everything that is missing or wrong is named at once, with how to set it.
Rule 3: secrets do not print.
"""

import base64
import json
import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from app.errors import BadSetting

SHIPPED_AGENTS = Path(__file__).parent / "agents"
E164 = re.compile(r"\+[1-9]\d{6,14}")


class AudioPathName(StrEnum):
    """How the caller's audio reaches the model."""

    TRANSCODE = "transcode"
    PASSTHROUGH = "passthrough"


class Price(BaseModel):
    """List prices in US dollars per million tokens; transcription per minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text_in: float
    text_cached: float
    text_out: float
    audio_in: float
    audio_cached: float
    audio_out: float


# Model pages of OpenAI as stored in the second half of 2026; PRICES overrides them. The row keeps the date beside the cost.
LIST_PRICES = {
    "gpt-realtime-2.1": {"text_in": 4, "text_cached": 0.4, "text_out": 24, "audio_in": 32, "audio_cached": 0.4, "audio_out": 64},
    "gpt-realtime-2": {"text_in": 4, "text_cached": 0.4, "text_out": 24, "audio_in": 32, "audio_cached": 0.4, "audio_out": 64},
    "gpt-realtime-1.5": {"text_in": 4, "text_cached": 0.4, "text_out": 16, "audio_in": 32, "audio_cached": 0.4, "audio_out": 64},
    "gpt-realtime-2.1-mini": {
        "text_in": 0.6, "text_cached": 0.06, "text_out": 2.4, "audio_in": 10, "audio_cached": 0.3, "audio_out": 20,
    },
}  # fmt: skip
TRANSCRIPTION_PER_MINUTE = {"gpt-transcribe": 0.0045}

DISPOSITIONS = (
    "appointment_booked,message_taken,information_given,sales_lead,callback_requested,transferred,wrong_number,not_interested,other"
)

HOW = {
    "public_url": "PUBLIC_URL=https://calls.example.com  (the address under which the carrier reaches this service)",
    "twilio_account_sid": "TWILIO_ACCOUNT_SID=AC...  (Twilio console, Account info)",
    "twilio_auth_token": "TWILIO_AUTH_TOKEN=...  (Twilio console, Account info; two, separated by a comma, while you rotate it)",
    "openai_api_key": "OPENAI_API_KEY=sk-...  (OpenAI console, API keys)",
    "audio_path": "AUDIO_PATH=transcode or AUDIO_PATH=passthrough",
    "transfer_to": "TRANSFER_TO=sales=+15551230001,manager=+15551230002  (a name and a number in E.164 each)",
    "database_url": "DATABASE_URL=sqlite:///var/callrow.db or DATABASE_URL=postgresql://user@host/name",
    "agents_dir": "AGENTS_DIR=/path/to/a/folder/of/agent/files",
    "port": "PORT=8080",
    "business_timezone": "BUSINESS_TIMEZONE=Europe/Berlin  (a name of the tz database)",
    "data_key": "DATA_KEY=...  (32 bytes in base64; make one with: openssl rand -base64 32)",
}


class Settings(BaseModel):
    """All settings of one process. Field names are the environment's names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    public_url: str
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    database_url: str = "sqlite:///var/callrow.db"
    workers: int = Field(1, ge=1, le=64)
    log_level: str = "info"

    twilio_account_sid: Annotated[str, Field(pattern=r"^AC[0-9a-fA-F]{32}$")]
    twilio_auth_token: SecretStr
    twilio_api_url: str = "https://api.twilio.com"
    twilio_require_stream_signature: bool = False

    openai_api_key: SecretStr
    openai_base_url: str = "https://api.openai.com/v1"
    realtime_model: str = "gpt-realtime-2.1"
    realtime_voice: str = "marin"
    reasoning_effort: str = "low"
    transcription_model: str = "gpt-transcribe"
    transcription_languages: tuple[str, ...] = ("en",)
    vad_threshold: float = Field(0.5, ge=0, le=1)
    vad_silence_ms: int = Field(500, ge=100, le=3_000)
    vad_prefix_ms: int = Field(300, ge=0, le=1_000)
    noise_reduction: str | None = None

    audio_path: AudioPathName = AudioPathName.TRANSCODE
    agents_dir: Path = SHIPPED_AGENTS
    first_agent: str = "front-desk"
    transfer_to: Mapping[str, str] = {}
    dispositions: tuple[str, ...] = tuple(DISPOSITIONS.split(","))
    intents: tuple[str, ...] = (
        "book_appointment",
        "buy",
        "support",
        "complaint",
        "leave_message",
        "wrong_number",
        "other",
    )
    business_timezone: str = "UTC"
    default_country_code: str = Field("1", pattern=r"^[1-9]\d{0,2}$")

    max_calls: int = Field(100, ge=1, le=10_000)
    reject_above: int = Field(2_000, ge=1)
    max_call_seconds: int = Field(3_000, ge=60, le=3_500)
    """Below the provider's 60 minutes a session, so that a call never meets that wall."""
    drain_seconds: int = Field(1_800, ge=0)

    prices: Mapping[str, Price] = Field(default_factory=lambda: {k: Price(**v) for k, v in LIST_PRICES.items()})
    prices_date: date = date(2026, 11, 20)
    data_key: SecretStr | None = None

    @field_validator("public_url", "twilio_api_url", "openai_base_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("is not an http or https address without query, fragment and password")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("must be https; plain http is for this machine only")
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _a_database(cls, value: str) -> str:
        if value.split(":", 1)[0].split("+", 1)[0] not in ("sqlite", "postgres", "postgresql"):
            raise ValueError("names no database we know (sqlite, postgresql)")
        return value

    @field_validator("transfer_to", mode="before")
    @classmethod
    def _a_directory(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        directory = {}
        for entry in filter(None, (part.strip() for part in value.split(","))):
            name, equals, number = (part.strip() for part in entry.partition("="))
            if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) or not E164.fullmatch(number):
                raise ValueError("is not a list of name=+number")  # the entry itself is private and stays out
            directory[name] = number
        return directory

    @field_validator("dispositions", "intents", "transcription_languages", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("prices", mode="before")
    @classmethod
    def _a_price_list(cls, value: Any) -> Any:
        return {**LIST_PRICES, **json.loads(value)} if isinstance(value, str) else value

    @field_validator("noise_reduction", mode="before")
    @classmethod
    def _noise_reduction(cls, value: Any) -> Any:
        if value in ("", None, "off"):
            return None
        if value not in ("near_field", "far_field"):
            raise ValueError("is none of off, near_field, far_field")
        return value

    @field_validator("business_timezone")
    @classmethod
    def _a_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as fault:
            raise ValueError("is not in the tz database") from fault
        return value

    @field_validator("data_key")
    @classmethod
    def _a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                sound = len(base64.b64decode(value.get_secret_value(), validate=True)) == 32
            except ValueError:
                sound = False
            if not sound:
                raise ValueError("is not 32 bytes in base64")
        return value

    @field_validator("agents_dir")
    @classmethod
    def _a_folder(cls, value: Path) -> Path:
        if not value.is_dir():
            raise ValueError("is not a folder")
        return value

    @property
    def per_transcription_minute(self) -> float | None:
        """US dollars a minute of transcription; None if we have no price for the model."""
        return TRANSCRIPTION_PER_MINUTE.get(self.transcription_model)

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        """The carrier's tokens that may sign: the first is ours to use, the others are accepted while one is being rotated."""
        return tuple(token.strip() for token in self.twilio_auth_token.get_secret_value().split(",") if token.strip())

    @property
    def realtime_url(self) -> str:
        """The Realtime socket's address, which follows from OPENAI_BASE_URL."""
        base = urlsplit(self.openai_base_url)
        return f"{'wss' if base.scheme == 'https' else 'ws'}://{base.netloc}{base.path}/realtime?model={self.realtime_model}"

    @property
    def stream_url(self) -> str:
        """The media socket's address as the carrier is told it: never with a query (Twilio's documentation)."""
        base = urlsplit(self.public_url)
        return f"{'wss' if base.scheme == 'https' else 'ws'}://{base.netloc}{base.path}/twilio/media"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read and check everything; an empty value counts as not set.

        Raises:
            BadSetting: naming every missing or wrong setting, and how to set it.
        """
        values = {name.lower(): value for name, value in env.items() if value.strip() and name.lower() in cls.model_fields}
        try:
            return cls.model_validate(values)
        except ValidationError as faults:
            complaints = []
            for fault in faults.errors(include_input=False, include_url=False):
                name = str(fault["loc"][0])
                wrong = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
                complaints.append((name.upper(), wrong, HOW.get(name, f"{name.upper()}=... (see the README's table of settings)")))
            raise BadSetting(complaints) from None


def environment(process: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The process's environment over the `.env` file of a folder, if there is one."""
    stored = {name: value for name, value in dotenv_values(folder / ".env").items() if value is not None}
    return {**stored, **process}
