"""Asking the model to speak: one response at a time.

Rule 1: while a response runs, what is to be said next is owed; the last order owed stands.
Rule 2: a response that was cut stays cut: its late audio is dropped, and one that was asked for and cut before it began is
cancelled as soon as it begins.
"""

from app.call.commands import CancelSpeech, Command, Speak


class Asking:
    """The responses of one stream."""

    __slots__ = ("_cancel_when_begun", "_cut", "_voiced", "_worked", "asked", "last", "owed", "response", "urgent")

    def __init__(self) -> None:
        self.response: str | None = None
        """The response that is running."""
        self.asked = False
        """A response was ordered and has not begun."""
        self.owed: Speak | None = None
        self.last = Speak()
        """What was ordered last: to be ordered again if it failed."""
        self.urgent = False
        """What is owed answers the caller, so it does not wait for errands."""
        self._cancel_when_begun = False
        self._cut: set[str] = set()
        self._voiced: set[str] = set()
        self._worked: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """A response runs or was ordered."""
        return self.response is not None or self.asked

    def order(self, speak: Speak) -> list[Command]:
        """The response is ordered now."""
        self.owed, self.asked, self.urgent = None, True, False
        self.last = speak
        return [speak]

    def began(self, response: str) -> list[Command]:
        """A response began."""
        self.response, self.asked = response, False
        if not self._cancel_when_begun:
            return []
        self._cancel_when_begun = False
        self._cut.add(response)
        return [CancelSpeech(response)]

    def ended(self, response: str) -> None:
        """A response ended, in whatever way."""
        if self.response in (response, None):
            self.response, self.asked = None, False

    def cut(self, *, cancel: bool) -> list[Command]:
        """Nothing more of the present response is to be heard; `cancel`: and the model is to be told to stop it."""
        if self.response is None:
            self._cancel_when_begun = self.asked and cancel
            return []
        fresh = self.response not in self._cut
        self._cut.add(self.response)
        return [CancelSpeech(self.response)] if cancel and fresh else []

    def was_cut(self, response: str) -> bool:
        """The response's audio is to be dropped."""
        return response in self._cut

    def voiced(self, response: str) -> None:
        """The response had audio that sounds."""
        self._voiced.add(response)

    def was_voiced(self, response: str) -> bool:
        """The response had audio that sounds, and that was queued."""
        return response in self._voiced

    def worked(self, response: str) -> None:
        """The response called a tool."""
        self._worked.add(response)

    def came_to_something(self, response: str) -> bool:
        """The response was heard of in some way: it sounded, called a tool, or was cut."""
        return response in self._voiced or response in self._worked or response in self._cut

    def refused(self) -> None:
        """The order was refused, because a response runs that we did not know of: it is owed."""
        self.asked, self._cancel_when_begun = False, False
        self.owed = self.owed or self.last

    @property
    def unfinished(self) -> Speak | None:
        """What was ordered, is not done, and is still wanted."""
        if self.response is not None:
            return None if self.response in self._cut else self.last
        return self.last if self.asked and not self._cancel_when_begun else None

    def lost(self) -> None:
        """The session is gone, and what it was doing with it."""
        self.response, self.asked, self._cancel_when_begun = None, False, False
