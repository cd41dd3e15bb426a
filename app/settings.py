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
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from app.errors import BadSetting

SHIPPED_AGENTS = Path(__file__).parent / "agents"
E164 = re.compile(r"\+[1-9]\d{6,14}")


class AudioPathName(StrEnum):
    """How the caller's audio reaches the model."""

    TRANSCODE = "transcode"
    PASSTHROUGH = "passthrough"


class AnalyzerName(StrEnum):
    """Who reads a call when it has ended."""

    AUTO = "auto"
    """The model; where there is no key for it, the rules."""
    RULES = "rules"
    OPENAI = "openai"


class Alert(StrEnum):
    """What people are told of by e-mail and chat."""

    ESCALATION = "escalation"
    """The reading says that a person should look at the call."""
    CALLBACK = "callback"
    """Somebody is to be called back, or left a message."""
    URGENT = "urgent"
    """The urgency is high."""


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
    "webhook_url": "WEBHOOK_URL=https://crm.example.com/hooks/callrow",
    "webhook_secret": "WEBHOOK_SECRET=whsec_...  (24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32))",
    "smtp_url": "SMTP_URL=smtps://user:password@mail.example.com:465 or SMTP_URL=smtp://mail.example.com:587  (STARTTLS is used)",
    "mail_from": "MAIL_FROM=callrow@example.com",
    "mail_to": "MAIL_TO=sales@example.com,owner@example.com",
    "chat_webhook_url": 'CHAT_WEBHOOK_URL=https://hooks.example.com/...  (Slack, Mattermost, or whatever takes {"text": ...})',
    "alerts": "ALERTS=escalation,callback,urgent  (any of these; ALERTS=none for none)",
    "oidc_issuer": "OIDC_ISSUER=https://login.example.com/realm  (to the letter as the provider writes it)",
    "oidc_client_secret": "OIDC_CLIENT_ID=... and OIDC_CLIENT_SECRET=...  (as the provider gave them for this service)",
    "rubric_file": "RUBRIC_FILE=/path/to/rubric.toml",
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
    max_loop_lag_ms: int = Field(200, ge=20, le=10_000)
    """Above it new calls are turned away as from a full house: those that are live would suffer."""
    calls_a_minute_per_caller: int = Field(60, ge=0, le=10_000)
    """From one number; 0 for no limit."""
    max_call_seconds: int = Field(3_000, ge=60, le=14_400)
    """Of any length: a session with the provider, which ends after 60 minutes, is replaced in time."""
    session_rollover_minutes: float = Field(50, ge=1, le=59)
    lines_dir: Path = Path("var/lines")
    drain_seconds: int = Field(1_800, ge=0)
    spool_dir: Path = Path("var/spool")
    spool_mb: int = Field(256, ge=1, le=65_536)

    analyzer: AnalyzerName = AnalyzerName.AUTO
    analysis_model: str = "gpt-6-luna"
    analysis_effort: str = "low"
    rubric_file: Path | None = None
    webhook_url: str | None = None
    webhook_secret: SecretStr | None = None
    smtp_url: SecretStr | None = None
    mail_from: str | None = None
    mail_to: tuple[str, ...] = ()
    chat_webhook_url: SecretStr | None = None
    alerts: tuple[Alert, ...] = (Alert.ESCALATION, Alert.CALLBACK)
    alert_details: Literal["none", "full"] = "none"
    """`none`: a message outside the house names the call and the reason, and nothing that was said."""
    deliver_days: float = Field(3, gt=0, le=30)
    jobs_at_once: int = Field(8, ge=1, le=64)
    reconcile_minutes: int = Field(60, ge=0, le=1_440)
    """How often our calls are compared with the carrier's; 0 for never."""

    session_idle_minutes: int = Field(30, ge=1, le=720)
    session_hours: int = Field(12, ge=1, le=168)
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_name: str | None = None
    oidc_new_users: Literal["none", "operator", "reviewer"] = "none"
    """What somebody may do whom the identity provider knows and we do not; an admin is made by an admin."""
    proxy_hops: int = Field(0, ge=0, le=8)
    """How many reverse proxies of our own stand in front, each of which adds to `X-Forwarded-For`."""

    prices: Mapping[str, Price] = Field(default_factory=lambda: {k: Price(**v) for k, v in LIST_PRICES.items()})
    prices_date: date = date(2026, 11, 20)
    data_key: SecretStr | None = None

    @field_validator("public_url", "twilio_api_url", "openai_base_url", "oidc_issuer")
    @classmethod
    def _an_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("is not an http or https address without query, fragment and password")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("must be https; plain http is for this machine only")
        # An issuer is compared to the letter, and some end with a slash (OpenID Connect Core 1.0, 3.1.3.7).
        return value if info.field_name == "oidc_issuer" else value.rstrip("/")

    @field_validator("webhook_url", "chat_webhook_url")
    @classmethod
    def _a_destination(cls, value: Any) -> Any:
        address = value.get_secret_value() if isinstance(value, SecretStr) else value
        if address is not None:
            parts = urlsplit(address)
            loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.fragment:
                raise ValueError("is not an http or https address without password and fragment")
            if parts.scheme == "http" and not loopback:
                raise ValueError("must be https; plain http is for this machine only")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _signing_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in signing_secrets(value):
            try:
                sound = 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
            except ValueError:
                sound = False
            if not sound:
                raise ValueError("is not whsec_ with 24 to 64 bytes in base64 (two, separated by a comma, while you rotate it)")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _a_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            try:
                sound = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                sound = False
            if not sound:
                raise ValueError("is not smtp://host:port or smtps://host:port, with user:password@ if the server asks for it")
        return value

    @field_validator("mail_from", "mail_to")
    @classmethod
    def _mail_addresses(cls, value: Any) -> Any:
        for address in (value,) if isinstance(value, str) else value or ():
            if not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+", address):
                raise ValueError("is not an e-mail address")  # which one is private and stays out
        return value

    @field_validator("alerts", mode="before")
    @classmethod
    def _some_alerts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return () if value.strip() == "none" else tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("rubric_file")
    @classmethod
    def _a_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("is not a file")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.webhook_url is not None and self.webhook_secret is None:
            raise ValueError("WEBHOOK_SECRET: is not set, and WEBHOOK_URL is: every webhook is signed")
        if self.smtp_url is not None and (self.mail_from is None or not self.mail_to):
            raise ValueError("MAIL_TO: MAIL_FROM and MAIL_TO are needed with SMTP_URL")
        if self.oidc_issuer is not None and (self.oidc_client_id is None or self.oidc_client_secret is None):
            raise ValueError("OIDC_CLIENT_SECRET: OIDC_CLIENT_ID and OIDC_CLIENT_SECRET are needed with OIDC_ISSUER")
        return self

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

    @field_validator("dispositions", "intents", "transcription_languages", "mail_to", mode="before")
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
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that sign what we send: all of them, so that a receiver may change from one to the next."""
        return signing_secrets(self.webhook_secret)

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
                wrong = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
                if fault["loc"]:
                    name = str(fault["loc"][0])
                else:  # of several settings together: the sentence begins with the name of the one to look at
                    name, _, wrong = (part.strip() for part in wrong.partition(":"))
                    name = name.lower()
                complaints.append((name.upper(), wrong, HOW.get(name, f"{name.upper()}=... (see the README's table of settings)")))
            raise BadSetting(complaints) from None


def signing_secrets(value: SecretStr | None) -> tuple[str, ...]:
    """One or two secrets, separated by a comma."""
    return tuple(part.strip() for part in value.get_secret_value().split(",") if part.strip()) if value is not None else ()


def environment(process: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The process's environment over the `.env` file of a folder, if there is one."""
    stored = {name: value for name, value in dotenv_values(folder / ".env").items() if value is not None}
    return {**stored, **process}
