"""What is filtered as a file: asked for with a reason, which is in the audit log before the first byte leaves.

Rule 1: the file is written by a process of its own (`app.wrapup.exporting`), at the lowest priority: this one carries calls. A few
at once, and each ends with whoever asked for it.
Rule 2: a file that is not whole ends without its end: the browser says that it failed.
"""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from app import logs
from app.web.console import saved, shell
from app.web.console.door import Console
from app.web.console.question import LIST
from app.web.console.visit import BadForm, NotAudited, Visit
from app.web.guard import Policy
from app.wrapup.export import Form
from app.wrapup.exporting import Errand

log = logs.logger("console")

EXPORT = f"{LIST}/export"
AT_ONCE = 2
PIECE = 64 * 1024
MOST_SAID = 2_000
SHORTEST_REASON, LONGEST_REASON = 4, 200
NUMBER = re.compile(r"(?:\d[\s().\-/]?){6,}")

FORMS = {
    "csv": ("CSV", Form.CSV, False, "csv", "text/csv; charset=utf-8"),
    "excel": ("CSV for Excel", Form.CSV, True, "csv", "text/csv; charset=utf-8"),
    "json": ("JSON", Form.JSON, False, "json", "application/json"),
    "jsonl": ("JSON, one row a line", Form.JSONL, False, "jsonl", "application/x-ndjson"),
}


def routes(console: Console, zone: ZoneInfo, now: Callable[[], datetime]) -> list[BaseRoute]:
    """The export."""
    settings = console.desk.settings
    free = asyncio.Semaphore(AT_ONCE)

    async def export(visit: Visit) -> Response:
        question, reason = saved.asking(visit.field("query")), " ".join(visit.field("reason").split())
        if visit.field("format") not in FORMS:
            raise BadForm
        if not SHORTEST_REASON <= len(reason) <= LONGEST_REASON or NUMBER.search(reason):
            visit.flash("Nothing was exported. Say in a few words what it is for, without names and numbers of callers.", "wrong")
            return visit.redirect(question.address)
        if free.locked():
            visit.flash(f"Nothing was exported: {AT_ONCE} others are being written. Try again in a moment.", "wrong")
            return visit.redirect(question.address)
        _, form, excel, ending, kind = FORMS[visit.field("format")]
        filters = question.filters(now(), zone)
        known: dict[str, Any] = {"format": visit.field("format"), "filters": list(question.asked), "reason": reason}
        window = {name: at.isoformat() for name in ("since", "until") if (at := getattr(filters, name)) is not None}
        await free.acquire()
        try:
            await visit.audit("calls.exported", None, known | window)
        except BaseException:
            free.release()
            raise
        errand = Errand(
            form=form,
            excel=excel,
            zone=zone.key,
            slots=list(dict.fromkeys(slot.name for _, agent in sorted(console.desk.agents.items()) for slot in agent.slots)),
            filters=filters,
            database_url=settings.database_url,
            data_key=settings.data_key.get_secret_value() if settings.data_key is not None else None,
        )
        name = f"calls-{now().astimezone(zone):%Y-%m-%d-%H%M}.{ending}"
        return StreamingResponse(
            _file(visit, errand, free),
            media_type=kind,
            headers={**shell.HEADERS, "content-disposition": f'attachment; filename="{name}"'},
        )

    return [console.page(EXPORT, export, Policy.REVIEWER, methods=["POST"])]


async def _file(visit: Visit, errand: Errand, free: asyncio.Semaphore) -> AsyncGenerator[bytes]:
    """The file, as it is written; in the end how it went is noted."""
    size, whole = 0, False
    try:
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.wrapup.exporting"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert writer.stdin is not None and writer.stdout is not None and writer.stderr is not None
        try:
            writer.stdin.write(msgspec.json.encode(errand))
            writer.stdin.write_eof()
            while piece := await writer.stdout.read(PIECE):
                size += len(piece)
                yield piece
            said = await writer.stderr.read(MOST_SAID)
            whole = await writer.wait() == 0
            if not whole:
                log.error("an export broke off", bytes=size, said=said.decode("utf-8", "replace"))
        finally:
            with suppress(ProcessLookupError):
                writer.kill()
            await writer.wait()
    finally:
        free.release()
        with suppress(NotAudited):  # that it began is in the log
            await visit.audit("calls.export_ended", None, {"whole": whole, "bytes": size})
    if not whole:
        raise ConnectionError("the export broke off")  # rule 2
