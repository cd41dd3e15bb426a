"""What every page of the console stands in: templates, static files, and the headers that hold a browser to what we mean.

Rule 1: no script and no style stands in a page, and a page asks nobody but us for anything: the policy says so to the browser.
Rule 2: templates escape whatever they are given. What a caller said is text, never markup (T37).
Rule 3: a static file's address holds its hash, so that it may be kept for ever, and a new version is a new address.
Rule 4: a page is rendered and compressed in a thread: the loop carries calls.
"""

import asyncio
import gzip
import hashlib
import io
import mimetypes
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from app.web.console.formats import filters
from app.web.guard import Policy

HERE = Path(__file__).parents[1]
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; media-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    # not `no-referrer`: a browser would then send `Origin: null` with our own forms (Fetch, "append a request Origin header")
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}
STATIC = "/console/static/"
FOR_EVER = "public, max-age=31536000, immutable"
SMALLEST_COMPRESSED = 1_000


@dataclass(frozen=True, slots=True)
class File:
    """A static file, ready to be sent."""

    content: bytes
    compressed: bytes | None
    kind: str
    digest: str


class Shell:
    """The templates and static files, read once.

    Args:
        zone: the business's time zone, in which times are shown.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.files = {path.name: _file(path) for path in sorted((HERE / "static").iterdir()) if path.is_file()}
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.filters |= filters(zone)
        self.templates.globals |= {"static": self.address, "zone": zone.key}
        self.templates.globals["ui"] = self.templates.get_template("console/_macros.html").module
        for name in self.templates.list_templates(filter_func=lambda name: name.endswith(".html")):
            self.templates.get_template(name)  # a broken one stops the start, and none is compiled while calls are carried

    def address(self, name: str) -> str:
        """Where a static file is to be had (rule 3)."""
        stem, _, ending = name.rpartition(".")
        return f"{STATIC}{stem}.{self.files[name].digest}.{ending}"

    async def render(self, template: str, context: Mapping[str, Any], *, block: str | None = None) -> str:
        """A page, or one block of it."""
        found = self.templates.get_template(template)
        if block is None:
            return await asyncio.to_thread(found.render, context)
        part: Callable[..., Any] = found.blocks[block]
        return await asyncio.to_thread(lambda: "".join(part(found.new_context(dict(context)))))


async def html(request: Request, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page as an answer, compressed where the browser can read it."""
    content = text.encode()
    response = Response(content, status, media_type="text/html", headers={**HEADERS, **(headers or {})})
    if len(content) >= SMALLEST_COMPRESSED and takes_gzip(request):
        response.body = await asyncio.to_thread(_compressed, content)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))
    response.headers.add_vary_header("Accept-Encoding")
    response.headers.add_vary_header("HX-Request")
    return response


def takes_gzip(request: Request) -> bool:
    """Whether the browser reads gzip."""
    return "gzip" in request.headers.get("accept-encoding", "")


class Static:
    """The door to the static files. Nothing in them is private."""

    policy = Policy.PUBLIC

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        stem, _, ending = str(request.path_params["name"]).rpartition(".")
        stem, _, digest = stem.rpartition(".")
        file = self._shell.files.get(f"{stem}.{ending}")
        if file is None:
            return PlainTextResponse("Not Found", 404, headers=HEADERS)
        content, tag = file.content, f'"{file.digest}"'
        # A page of a newer or an older worker may ask while a deploy rolls: it gets what there is, and does not keep it.
        headers = {**HEADERS, "cache-control": FOR_EVER if digest == file.digest else "no-cache", "vary": "Accept-Encoding"}
        if file.compressed is not None and takes_gzip(request):
            content, tag = file.compressed, f'"{file.digest}-gzip"'
            headers["content-encoding"] = "gzip"
        headers["etag"] = tag
        if tag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
            headers.pop("content-encoding", None)
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=file.kind, headers=headers)


def _file(path: Path) -> File:
    content = path.read_bytes()
    compressed = gzip.compress(content, 9, mtime=0)
    kind = mimetypes.types_map.get(path.suffix, "text/plain")
    digest = hashlib.sha256(content).hexdigest()[:16]
    return File(content, compressed if len(compressed) < len(content) else None, kind, digest)


def _compressed(content: bytes) -> bytes:
    """With a name of random length in gzip's header: a length tells less about what is within (BREACH)."""
    made = io.BytesIO()
    name = "x" * (1 + secrets.randbelow(64))
    with gzip.GzipFile(filename=name, mode="wb", compresslevel=5, fileobj=made, mtime=0) as file:
        file.write(content)
    return made.getvalue()
