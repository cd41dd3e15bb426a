"""`callrow doctor`: proves a configuration before a phone rings. Every finding says what to do; nothing is changed anywhere.

Rule 1: a finding is `ok`, `wrong`, or `cannot check` (because something else must be put right first).
Rule 2: no secret, and nothing that a caller said, is in a finding.
Rule 3: checks do not wait for one another, and none waits for ever.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from app.cli import reading
from app.cli.addresses import Addresses
from app.errors import BadAgent, BadCarrierMessage, BadSetting, CarrierRefused, OurFault, StoreUnavailable
from app.settings import AnalyzerName, Settings
from app.twilio.carrier import Carrier, NumberConfiguration

PATIENCE_S = 10.0
SOON = timedelta(days=90)
LOOPBACK = ("127.0.0.1", "localhost", "::1")

SHUTDOWNS = {
    **dict.fromkeys(("gpt-realtime", "gpt-realtime-2025-08-28"), date(2027, 1, 20)),
    **dict.fromkeys(("gpt-realtime-mini", "gpt-realtime-mini-2025-12-15"), date(2027, 1, 20)),
    **dict.fromkeys(("gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize", "whisper-1"), date(2027, 2, 26)),
}
"""The provider's announced last days, as known on 2026-11-20 (OpenAI's Realtime documentation)."""
RETIRED = ("gpt-4o-realtime-preview", "gpt-4o-mini-realtime-preview")
"""Of the beta, which has ended: these and their dated snapshots."""

GOES_WITH = {"WEBHOOK_SECRET": "WEBHOOK_URL", "MAIL_FROM": "SMTP_URL", "MAIL_TO": "SMTP_URL"}
"""The one is wanted only because of the other: without it, the other is left out too."""


class Verdict(StrEnum):
    """What came of a check."""

    OK = "ok"
    WRONG = "wrong"
    CANNOT_CHECK = "cannot check"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` says what to do."""

    verdict: Verdict
    name: str
    what: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """The finding for people."""
        return [f"{self.verdict:<12}  {self.name}: {self.what}", *([f"{'':<12}  -> {self.remedy}"] if self.remedy else [])]


def ok(name: str, what: str) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, name, what)


def wrong(name: str, what: str, remedy: str) -> Finding:
    """Something is to be put right."""
    return Finding(Verdict.WRONG, name, what, remedy)


def cannot(name: str, what: str) -> Finding:
    """Something else comes first."""
    return Finding(Verdict.CANNOT_CHECK, name, what)


@click.command()
def doctor() -> None:
    """Check settings, database, agents, model, carrier and the public address. Exit code 0 if nothing is wrong."""
    findings: list[Finding] = []
    unusable: set[str] = set()
    try:
        settings = reading.settings()
        findings.append(ok("settings", "complete"))
    except BadSetting as fault:
        unusable = {name for name, _, _ in fault.complaints}
        findings += [wrong(f"setting {name}", complaint, remedy) for name, complaint, remedy in fault.complaints]
        settings = reading.settings_without_keys(leave_out=unusable | {GOES_WITH[name] for name in unusable if name in GOES_WITH})
    findings += asyncio.run(examine(settings, unusable))
    for finding in findings:
        click.echo("\n".join(finding.lines()))
    if unusable:
        sys.exit(2)
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        sys.exit(1)


async def examine(settings: Settings, unusable: Collection[str] = (), *, today: date | None = None) -> list[Finding]:
    """Every check, in the order of the report. `unusable` names settings that are missing or wrong; what needs them waits."""
    today = today or datetime.now(UTC).date()
    checks: list[tuple[str, Iterable[str], Callable[[], Awaitable[list[Finding]]]]] = [
        ("database", ("DATABASE_URL",), lambda: asyncio.to_thread(check_database, settings)),
        ("agents", ("AGENTS_DIR", "TRANSFER_TO"), lambda: asyncio.to_thread(check_agents, settings)),
        ("model dates", (), lambda: _at_once(check_dates(settings, today))),
        ("model", ("OPENAI_API_KEY", "OPENAI_BASE_URL"), lambda: check_model(settings)),
        ("session", ("OPENAI_API_KEY", "OPENAI_BASE_URL"), lambda: check_session(settings)),
        (
            "carrier",
            ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_URL", "PUBLIC_URL"),
            lambda: check_carrier(settings),
        ),
        ("public address", ("PUBLIC_URL",), lambda: check_public_address(settings)),
        ("analyzer", ("ANALYZER", "RUBRIC_FILE"), lambda: asyncio.to_thread(check_analyzer, settings)),
        ("webhook", ("WEBHOOK_URL", "WEBHOOK_SECRET"), lambda: check_webhook(settings)),
        ("mail", ("SMTP_URL", "MAIL_FROM", "MAIL_TO"), lambda: check_mail(settings)),
        ("chat", ("CHAT_WEBHOOK_URL",), lambda: check_chat(settings)),
        ("alerts", ("ALERTS", "SMTP_URL", "MAIL_TO", "CHAT_WEBHOOK_URL"), lambda: _at_once(check_alerts(settings))),
    ]

    async def run(name: str, needs: Iterable[str], check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
        if first := [setting for setting in needs if setting in unusable]:
            return [cannot(name, f"{' and '.join(first)} must be set right first")]
        return await check()

    found = await asyncio.gather(*(run(*check) for check in checks))
    return [finding for findings in found for finding in findings]


async def _at_once(findings: list[Finding]) -> list[Finding]:
    return findings


def check_database(settings: Settings) -> list[Finding]:
    """Reachable, and of this version."""
    from app.store import migrate

    name = reading.database_name(settings.database_url)
    try:
        found = reading.revision(settings.database_url)
    except reading.NotMigrated:
        return [wrong("database", f"{name}: there are no tables yet", "run: callrow migrate")]
    except StoreUnavailable:
        return [wrong("database", f"{name} cannot be reached", "check DATABASE_URL; the server must run and let this user in")]
    except BadSetting as fault:
        return [wrong("database", fault.complaints[0][1], fault.complaints[0][2])]
    if found != (head := migrate.head()):
        return [
            ok("database", f"{name} answers"),
            wrong("migrations", f"the database is at {found}, this code expects {head}", "run: callrow migrate"),
        ]
    return [ok("database", f"{name} answers"), ok("migrations", f"at {found}")]


def check_agents(settings: Settings) -> list[Finding]:
    """The files are right, and the first agent is among them."""
    try:
        agents = reading.agents(settings)
    except BadAgent as fault:
        return [wrong("agents", f"{file}:{line}: {complaint}", "correct the file") for file, line, complaint in fault.complaints]
    except OurFault as fault:
        return [wrong("agents", str(fault), "correct the tool's declaration")]
    findings = [ok("agents", f"{', '.join(sorted(agents))} from {settings.agents_dir.name}/")]
    if settings.first_agent not in agents:
        remedy = f"FIRST_AGENT=one of {', '.join(sorted(agents))}"
        findings.append(wrong("first agent", f"there is no agent {settings.first_agent}", remedy))
    if not settings.transfer_to:
        findings.append(ok("transfer", "TRANSFER_TO is empty: nobody is put through, agents take a message instead"))
    else:
        findings.append(ok("transfer", f"to {', '.join(sorted(settings.transfer_to))}"))
    return findings


def check_dates(settings: Settings, today: date) -> list[Finding]:
    """The provider has announced when some models end."""
    findings = []
    for setting, model in (("REALTIME_MODEL", settings.realtime_model), ("TRANSCRIPTION_MODEL", settings.transcription_model)):
        remedy = f"{setting}={Settings.model_fields[setting.lower()].default}"
        last = SHUTDOWNS.get(model)
        if model.startswith(RETIRED):
            findings.append(wrong("model dates", f"{model} was of the beta, which has ended", remedy))
        elif last is None:
            findings.append(ok("model dates", f"no end of {model} was announced when this version was made"))
        elif today >= last:
            findings.append(wrong("model dates", f"{model} was to be shut down on {last}", remedy))
        elif today >= last - SOON:
            findings.append(wrong("model dates", f"{model} will be shut down on {last}", f"move soon: {remedy}"))
        else:
            findings.append(ok("model dates", f"{model} runs until {last}"))
    return findings


async def check_model(settings: Settings) -> list[Finding]:
    """The provider knows our key, and the models that we want."""
    address = f"{settings.openai_base_url}/models"
    headers = {"authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    answer = await _get(address, headers)
    if isinstance(answer, str):
        return [wrong("model", f"{address}: {answer}", "check OPENAI_BASE_URL, and that this machine may reach it")]
    if answer.status_code in (401, 403):
        return [wrong("model", f"the provider refuses the key (HTTP {answer.status_code})", "OPENAI_API_KEY=..., a living one")]
    if answer.status_code != 200:
        return [wrong("model", f"{address} answers HTTP {answer.status_code}", "check OPENAI_BASE_URL (it ends with /v1)")]
    try:
        listed = {str(model["id"]) for model in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return [wrong("model", f"{address} answers, but not with a list of models", "check OPENAI_BASE_URL (it ends with /v1)")]
    findings = [ok("model", f"{urlsplit(address).hostname} takes the key")]
    wanted = [("REALTIME_MODEL", settings.realtime_model), ("TRANSCRIPTION_MODEL", settings.transcription_model)]
    if reads_by_model(settings):
        wanted.append(("ANALYSIS_MODEL", settings.analysis_model))
    for setting, model in wanted:
        if model in listed:
            findings.append(ok("model", f"{model} is there for this key"))
        else:
            findings.append(wrong("model", f"{model} is not there for this key", f"{setting}=one that the key's project may use"))
    return findings


async def check_session(settings: Settings) -> list[Finding]:
    """The provider opens a session for us: the socket itself, and not only the list. Nothing is said, and it costs nothing."""
    address = settings.realtime_url.partition("?")[0]
    headers = {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    try:
        async with asyncio.timeout(PATIENCE_S):
            async with connect(settings.realtime_url, additional_headers=headers, compression=None, proxy=None) as socket:
                first = json.loads(await socket.recv())
    except InvalidStatus as fault:
        status = fault.response.status_code
        return [wrong("session", f"{address} refuses a session (HTTP {status})", "see the findings of `model` above")]
    except (OSError, TimeoutError, WebSocketException, ValueError) as fault:
        remedy = "WebSockets to the provider must get through this machine's firewall"
        return [wrong("session", f"{address}: no session ({type(fault).__name__})", remedy)]
    if isinstance(first, dict) and first.get("type") == "session.created":
        return [ok("session", f"{settings.realtime_model} opens one")]
    code = str((first.get("error") or {}).get("code")) if isinstance(first, dict) else "no event"
    return [wrong("session", f"{settings.realtime_model} opens none: {code}", "REALTIME_MODEL=one that the key's project may use")]


async def check_carrier(settings: Settings) -> list[Finding]:
    """The carrier knows our account, and a number of it rings here."""
    try:
        async with asyncio.timeout(PATIENCE_S * 2):
            async with Carrier(settings.twilio_account_sid, settings.auth_tokens[0], settings.twilio_api_url) as carrier:
                numbers = await carrier.number_configuration()
    except (CarrierRefused, BadCarrierMessage) as fault:
        if isinstance(fault, CarrierRefused) and fault.status in (401, 403):
            remedy = "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN as in the Twilio console, Account info"
            return [wrong("carrier", f"the carrier refuses the account (HTTP {fault.status})", remedy)]
        return [wrong("carrier", str(fault), "check TWILIO_API_URL, and that this machine may reach it")]
    except TimeoutError:
        return [wrong("carrier", "no answer in time", "check TWILIO_API_URL, and that this machine may reach it")]
    findings = [ok("carrier", f"the account is known and has {len(numbers)} number{'s' * (len(numbers) != 1)}")]
    wanted = Addresses.of(settings)
    ours = [number for number in numbers if rings_here(number, wanted)]
    for number in ours:
        findings += check_number(number, wanted)
    if not ours:
        remedy = "in the Twilio console, Phone Numbers, your number, Voice: " + "; ".join(wanted.lines())
        findings.append(wrong("carrier", f"no number of the account calls {wanted.voice}", remedy))
    return findings


def rings_here(number: NumberConfiguration, wanted: Addresses) -> bool:
    """Whether it is meant for us: its address is ours, perhaps under another path or after an old host's name."""
    return number.voice_url.rstrip("/") == wanted.voice or urlsplit(number.voice_url).netloc == urlsplit(wanted.voice).netloc


def check_number(number: NumberConfiguration, wanted: Addresses) -> list[Finding]:
    """One number's configuration, field by field."""
    name, faults = f"number {number.number}", []
    if number.trunk_sid:
        faults.append(("it belongs to a SIP trunk, so its addresses are not used", "take it out of the trunk"))
    if number.voice_application_sid:
        faults.append(("a TwiML App is set, so its own addresses are not used", "choose Webhook instead of the TwiML App"))
    for what, found, method, want in (
        ("a call comes in", number.voice_url, number.voice_method, wanted.voice),
        ("primary handler fails", number.voice_fallback_url, number.voice_fallback_method, wanted.fallback),
        ("call status changes", number.status_callback, number.status_callback_method, wanted.status),
    ):
        if found != want:
            faults.append((f"{what}: {'nothing is set' if not found else 'another address is set'}", f"set it to {want}"))
        elif method.upper() != "POST":
            faults.append((f"{what}: the method is {method}", "choose HTTP POST"))
    if not faults:
        return [ok(name, "calls this service, its fallback and its status address")]
    return [wrong(name, what, remedy) for what, remedy in faults]


async def check_public_address(settings: Settings) -> list[Finding]:
    """PUBLIC_URL leads to this service."""
    host = urlsplit(settings.public_url).hostname
    address = f"{settings.public_url}/health/live"
    if host in LOOPBACK and urlsplit(settings.twilio_api_url).hostname not in LOOPBACK:
        remedy = "PUBLIC_URL=https://... of a proxy or a tunnel that leads to this service"
        return [wrong("public address", f"the carrier cannot reach {settings.public_url}: it means this machine alone", remedy)]
    answer = await _get(address, {})
    if isinstance(answer, str):
        remedy = "start the service (callrow serve); then check the name, the proxy or tunnel, and the firewall"
        return [wrong("public address", f"{address}: {answer}", remedy)]
    if answer.status_code != 200 or _json(answer) != {"status": "live"}:
        remedy = "the proxy or tunnel must lead to this service, with the path as it is"
        return [wrong("public address", f"{address} answers HTTP {answer.status_code}, and not as this service does", remedy)]
    return [ok("public address", f"{settings.public_url} leads to this service")]


def reads_by_model(settings: Settings) -> bool:
    """Whether a model reads the calls when they have ended."""
    from app.wrapup.analyzers import NO_KEY

    has_key = settings.openai_api_key.get_secret_value() not in NO_KEY
    return settings.analyzer is AnalyzerName.OPENAI or (settings.analyzer is AnalyzerName.AUTO and has_key)


def check_analyzer(settings: Settings) -> list[Finding]:
    """Who reads the calls when they have ended, and by which rubric. (Whether the provider has the model is `model`'s finding.)"""
    from app.wrapup.facts import Lists

    try:
        rubric = Lists.of(settings).rubric
    except BadSetting as fault:
        return [wrong("analyzer", f"{name}: {complaint}", remedy) for name, complaint, remedy in fault.complaints]
    by = f"the model {settings.analysis_model}" if reads_by_model(settings) else "the rules, by English phrases and without a model"
    return [ok("analyzer", f"calls are read by {by}; leads are scored by {rubric.name}")]


async def check_webhook(settings: Settings) -> list[Finding]:
    """The CRM can be reached."""
    if settings.webhook_url is None:
        return [ok("webhook", "WEBHOOK_URL is not set: rows go nowhere by themselves; callrow export writes them")]
    signed = f"rows are signed with {len(settings.webhook_secrets)} secret{'s' * (len(settings.webhook_secrets) != 1)}"
    return [await _reach("webhook", "WEBHOOK_URL", settings.webhook_url, signed)]


async def check_mail(settings: Settings) -> list[Finding]:
    """The mail server can be reached. Whether it takes the login and the addresses only a mail would show, and none is sent."""
    if settings.smtp_url is None:
        return [ok("mail", "SMTP_URL is not set: nobody is told by mail")]
    count = len(settings.mail_to)
    what = f"alerts go to {count} address{'es' * (count != 1)}; the login is not tried"
    return [await _reach("mail", "SMTP_URL", settings.smtp_url.get_secret_value(), what)]


async def check_chat(settings: Settings) -> list[Finding]:
    """The chat can be reached."""
    if settings.chat_webhook_url is None:
        return [ok("chat", "CHAT_WEBHOOK_URL is not set: nobody is told by chat")]
    return [await _reach("chat", "CHAT_WEBHOOK_URL", settings.chat_webhook_url.get_secret_value(), "alerts go there")]


def check_alerts(settings: Settings) -> list[Finding]:
    """Who is told of what."""
    rules = ", ".join(settings.alerts)
    if not rules:
        return [ok("alerts", "ALERTS=none: people are told of nothing")]
    if settings.smtp_url is None and settings.chat_webhook_url is None:
        return [ok("alerts", f"{rules}: but nobody is told, for neither SMTP_URL nor CHAT_WEBHOOK_URL is set")]
    details = "with names, numbers and summaries" if settings.alert_details == "full" else "without anything that was said"
    return [ok("alerts", f"{rules}: {details}")]


async def _reach(name: str, setting: str, address: str, what: str) -> Finding:
    """A connection, under TLS where the address wants it at once, and not a byte more. Of the address only the host is told."""
    from app.wrapup import mailing, posting

    parts = urlsplit(address)
    secure = parts.scheme in ("https", "smtps")
    host = parts.hostname or ""
    port = mailing.MailServer.of(address).port if parts.scheme.startswith("smtp") else parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(host, port, ssl=posting.tls() if secure else None)
            writer.transport.abort()
    except (OSError, TimeoutError, ValueError) as fault:  # a ValueError: a name that cannot be one
        remedy = f"check {setting}, and that this machine may reach it (its firewall, its certificates)"
        return wrong(name, f"{host}:{port}: no connection ({type(fault).__name__})", remedy)
    return ok(name, f"{host}:{port} can be reached; {what}")


async def _get(address: str, headers: dict[str, str]) -> httpx2.Response | str:
    """The answer, or why there is none. Like the service itself, it uses no proxy of the environment."""
    try:
        async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False, follow_redirects=False) as client:
            return await client.get(address, headers=headers)
    except httpx2.TransportError as fault:
        return f"no answer ({type(fault).__name__})"


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
