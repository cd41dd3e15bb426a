"""The documents we answer the carrier with: `twiml/*.xml`, filled.

Rule 1: a template is parsed first and filled then, so no value can become markup, whatever is in it.
Rule 2: every placeholder must be given and every value used; an edited template that breaks this is refused at start.
Rule 3: addresses are made from the configured public address alone.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from urllib.parse import quote
from xml.etree import ElementTree

from app.errors import BadSetting

TEMPLATES = Path(__file__).parents[2] / "twiml"
CONTENT_TYPE = "text/xml; charset=utf-8"
# How long a person may take to answer, before the agent goes on. Voicemail mostly answers after 25 s.
DIAL_SECONDS = 20

# What XML 1.0 cannot hold at all, escaped or not (section 2.2 of its specification); lone surrogates among them.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Each document and the values that it must be given.
DOCUMENTS: Mapping[str, frozenset[str]] = {
    "answer": frozenset({"resume_url", "stream_name", "stream_url", "stream_status_url", "call_id", "epoch", "token"}),
    "say": frozenset({"sentence"}),
    "say-and-resume": frozenset({"sentence", "resume_url"}),
    "dial": frozenset({"timeout_s", "resume_url", "status_url", "number"}),
    "leave-number": frozenset({"sentence", "left_url"}),
    "hang-up": frozenset(),
    "nothing": frozenset(),
    "reject": frozenset(),
}


class Twiml:
    """Fills the documents for one service. All are read, and checked, when it is made.

    Raises:
        BadSetting: a template is missing, is not XML, or has other placeholders than its values.
    """

    def __init__(self, public_url: str, stream_url: str, folder: Path = TEMPLATES) -> None:
        self._twilio = f"{public_url.rstrip('/')}/twilio"
        self._stream_url = stream_url
        self._templates, complaints = _read(folder)
        if complaints:
            raise BadSetting(complaints)

    def answer(self, call_id: str, epoch: int, token: str) -> bytes:
        """Open a stream for this epoch of the call; whatever ends it leads to the resume address of the same epoch."""
        return self._fill(
            "answer",
            resume_url=self.resume_url(epoch),
            stream_name=f"callrow-{epoch}",
            stream_url=self._stream_url,
            stream_status_url=f"{self._twilio}/stream-status",
            call_id=call_id,
            epoch=str(epoch),
            token=token,
        )

    def say(self, sentence: str) -> bytes:
        """A spoken sentence, then the end of the call."""
        return self._fill("say", sentence=sentence)

    def say_and_resume(self, sentence: str, epoch: int, again: int = 0) -> bytes:
        """A spoken sentence, then the question again what follows this epoch. `again` counts how often in a row that was said."""
        return self._fill(
            "say-and-resume", sentence=sentence, resume_url=self.resume_url(epoch) + (f"&again={again}" if again else "")
        )

    def dial(self, number: str, epoch: int) -> bytes:
        """Transfer the caller to a number, in E.164; taken or not, the carrier comes back to the resume address."""
        return self._fill(
            "dial",
            number=number,
            timeout_s=str(DIAL_SECONDS),
            resume_url=self.resume_url(epoch),
            status_url=f"{self._twilio}/status",
        )

    def leave_number(self, sentence: str, call_id: str) -> bytes:
        """A spoken sentence that asks for a number by keys; they come to `/twilio/left`, also when none were pressed."""
        left_url = f"{self._twilio}/left?call={quote(ILLEGAL.sub('', call_id), safe='')}"
        return self._fill("leave-number", sentence=sentence, left_url=left_url)

    def hang_up(self) -> bytes:
        """End the call."""
        return self._fill("hang-up")

    def nothing(self) -> bytes:
        """An empty document: there is nobody left to do anything for."""
        return self._fill("nothing")

    def reject(self) -> bytes:
        """Busy, unanswered and unbilled."""
        return self._fill("reject")

    def resume_url(self, epoch: int) -> str:
        """The address that decides what follows a stream of this epoch; also the target of every REST redirect."""
        return f"{self._twilio}/resume?epoch={epoch}"

    def _fill(self, name: str, **values: str) -> bytes:
        root = copy.deepcopy(self._templates[name])
        values = {key: ILLEGAL.sub("", value) for key, value in values.items()}
        for element in root.iter():
            if element.text:
                element.text = Template(element.text).substitute(values)
            if element.tail:
                element.tail = Template(element.tail).substitute(values)
            for attribute, value in element.items():
                element.set(attribute, Template(value).substitute(values))
        filled: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return filled


def _read(folder: Path) -> tuple[dict[str, ElementTree.Element], list[tuple[str, str, str]]]:
    templates: dict[str, ElementTree.Element] = {}
    complaints = []
    for name, wanted in DOCUMENTS.items():
        file = folder / f"{name}.xml"
        remedy = "restore it from the distribution; its placeholders are: " + (", ".join(sorted(wanted)) or "none")
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314 - a file of the installation, not of a stranger
        except (OSError, ElementTree.ParseError) as fault:
            complaints.append((f"twiml/{name}.xml", f"cannot be read ({type(fault).__name__})", remedy))
            continue
        for element in root.iter():
            # Line breaks between tags are for the reader of the file; the carrier is not sent them.
            element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
            if element.text and not len(element):
                element.text = element.text.strip()
        texts = [text for element in root.iter() for text in (element.text or "", element.tail or "", *element.attrib.values())]
        held = {placeholder for text in texts for placeholder in Template(text).get_identifiers()}
        if root.tag != "Response" or held != wanted or not all(Template(text).is_valid() for text in texts):
            complaints.append((f"twiml/{name}.xml", "is no <Response> with exactly the right placeholders", remedy))
            continue
        templates[name] = root
    return templates, complaints
