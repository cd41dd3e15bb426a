"""What somebody may do about a call from its page: correct what was judged, take that back, say that they have looked, have
something sent or read again.

Rule 1: what is typed is checked by `wrapup/correction.py` and by nothing else; a refusal says what is allowed.
Rule 2: the audit log says who asked for what before it is done, and once more, in the same transaction, that it was done.
Rule 3: htmx is given the part of the page that has changed; a browser without it is sent back to the page, to the same place.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.web.console.call_page import CALL, CallRoom, Wrong
from app.web.console.door import Console
from app.web.console.judged import LABELS
from app.web.console.visit import BadForm, NotFound, Visit
from app.web.guard import Policy
from app.wrapup.correction import FIELDS, NotAllowed, corrected
from app.wrapup.facts import Field

LONGEST_NOTE = 1_000


def routes(console: Console) -> list[BaseRoute]:
    """The forms of the page."""
    room = Changes(console)
    judged = f"{CALL}/judged/{{field}}"
    post = ("POST",)
    return [
        console.page(f"{judged}/correct", room.correct, Policy.OPERATOR, methods=post, audits="call.corrected"),
        console.page(f"{judged}/take-back", room.take_back, Policy.OPERATOR, methods=post, audits="call.correction_taken_back"),
        console.page(f"{CALL}/reviewed", room.reviewed, Policy.REVIEWER, methods=post, audits="call.reviewed"),
        console.page(f"{CALL}/read-again", room.read_again, Policy.ADMIN, methods=post, audits="call.read_again"),
        console.page(
            f"{CALL}/deliveries/{{delivery_id}}/resend", room.resend, Policy.ADMIN, methods=post, audits="call.delivery_resent"
        ),
    ]


class Changes(CallRoom):
    """The forms of one call's page."""

    async def correct(self, visit: Visit) -> Response:
        """A person says what is right."""
        row, which = await self._judged(visit)
        typed, note = visit.field("value"), " ".join(visit.field("note").split())
        value: str | int | bool | None = None
        if visit.field("nothing"):
            if which is Field.ESCALATION:
                raise BadForm
        else:
            try:
                value = corrected(which, typed, self.lists)
            except NotAllowed as refused:
                return await self._refused(visit, row, Wrong(which.value, _sentence(which, refused.because), typed, note))
        if len(note) > LONGEST_NOTE:
            because = f"The note has at most {LONGEST_NOTE:,} characters."
            return await self._refused(visit, row, Wrong(which.value, because, typed, note))
        await visit.audit("call.corrected", row["call_id"], {"field": which.value})
        done = await self.judgements.correct(row["call_id"], which.value, value, by=visit.actor, note=note or None)
        name = LABELS[which]
        return await self._done(visit, f"{name}: corrected." if done else f"{name}: that has been said already.", f"field-{which}")

    async def take_back(self, visit: Visit) -> Response:
        """What the reading or the agent said stands again."""
        row, which = await self._judged(visit)
        await visit.audit("call.correction_taken_back", row["call_id"], {"field": which.value})
        done = await self.judgements.retract(row["call_id"], which.value, by=visit.actor)
        name = LABELS[which]
        return await self._done(visit, f"{name}: taken back." if done else f"{name}: nobody has corrected it.", f"field-{which}")

    async def reviewed(self, visit: Visit) -> Response:
        """Somebody has looked at the row as it stands."""
        row = await self._finished(visit)
        await visit.audit("call.reviewed", row["call_id"])
        done = await self.judgements.reviewed(row["call_id"], by=visit.actor)
        return await self._done(visit, "Marked as looked at." if done else "Somebody has looked at it already.", "review")

    async def read_again(self, visit: Visit) -> Response:
        """A reading that was given up is tried once more."""
        row = await self._finished(visit)
        await visit.audit("call.read_again", row["call_id"])
        done = await self.judgements.again(row["call_id"], visit.actor)
        return await self._done(visit, "It will be read again." if done else "It is read, or will be anyway.", "judged")

    async def resend(self, visit: Visit) -> Response:
        """The same message goes out once more."""
        row = await self._finished(visit)
        delivery_id = str(visit.request.path_params["delivery_id"])
        if delivery_id not in {each["id"] for each in await self.deliveries.list(call_id=row["call_id"], limit=1_000)}:
            raise NotFound
        await visit.audit("call.delivery_resent", row["call_id"], {"delivery": delivery_id})
        done = await self.deliveries.resend(delivery_id, visit.actor)
        return await self._done(visit, "It will be sent again." if done else "It is on its way anyway.", "deliveries")

    # ---- in common

    async def _finished(self, visit: Visit) -> dict[str, Any]:
        """The row, once it is finished: before that nothing is judged and nothing is sent."""
        row = await self.row(visit)
        if row["state"] != "final":
            raise BadForm
        return row

    async def _judged(self, visit: Visit) -> tuple[dict[str, Any], Field]:
        row, name = await self._finished(visit), str(visit.request.path_params["field"])
        if name not in FIELDS:
            raise NotFound
        return row, Field(name)

    async def _refused(self, visit: Visit, row: Mapping[str, Any], wrong: Wrong) -> Response:
        await visit.audit("call.correction_refused", row["call_id"], {"field": wrong.field})  # the answer shows the call
        show = self.part if visit.wants_part else self.page
        return await show(visit, row, wrong, status=422)

    async def _done(self, visit: Visit, told: str, place: str) -> Response:
        visit.flash(told)
        if visit.wants_part:
            return await self.part(visit, await self.row(visit))
        query = visit.request.url.query
        path = visit.request.url.path.split("/")
        return visit.redirect("/".join(path[:4]) + (f"?{query}" if query else "") + f"#{place}")


def _sentence(which: Field, because: str) -> str:
    """A refusal as a person reads it under the field."""
    return f"{LABELS[which]} {because}."
