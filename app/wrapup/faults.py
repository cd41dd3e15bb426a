"""What the world may say when a call is to be analysed.

* AnalysisFault (a WorldFault)
    * AnalyzerUnreachable   no connection, or no answer in time: again later
    * AnalyzerBusy          429, 408, 409 or 5xx, or a response that failed by the server's fault: again later
    * QuotaExhausted        the account has no money or no quota left: again only when a person has seen to it
    * AnalyzerRejected      another 4xx, or a request the provider will not take: key, model or schema are wrong
    * AnswerRefused         the model or its filter declines to judge this call
    * AnswerCutOff          the answer was longer than it may be, also at the second, larger try
    * AnswerUnreadable      no JSON, or not of our shape: again, for a model does not say everything twice

Rule: none of them carries a word of the call, of the prompt or of the answer; codes are the provider's own and short. Nor do they
carry another exception that does: they are raised outside of the `except` that found the trouble, for `from None` only hides it.
"""

import re

from app.errors import WorldFault

CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


class AnalysisFault(WorldFault):
    """A call was not analysed. `reason` is a short constant, `code` the provider's own."""

    def __init__(self, reason: str, code: str | None = None, status: int | None = None, retry_after_s: float | None = None) -> None:
        self.reason, self.status, self.retry_after_s = reason, status, retry_after_s
        self.code = code if code is not None and CODE.fullmatch(code) else None
        super().__init__(reason, self.code, status, retry_after_s)  # a durable job keeps exceptions by their arguments

    def __str__(self) -> str:
        told = ", ".join(filter(None, (f"HTTP {self.status}" if self.status else None, self.code)))
        return f"the call was not analysed: {self.reason}" + (f" ({told})" if told else "")


class AnalyzerUnreachable(AnalysisFault):
    """No connection, or no answer in time."""

    retryable = True


class AnalyzerBusy(AnalysisFault):
    """The provider cannot now. `retry_after_s` is when it said to come again, if it did."""

    retryable = True


class QuotaExhausted(AnalysisFault):
    """The account's quota is used up. Trying again does not fill it."""


class AnalyzerRejected(AnalysisFault):
    """The provider does not take the request: an admin is needed."""


class AnswerRefused(AnalysisFault):
    """The model, or a filter over it, declines to judge this call."""


class AnswerCutOff(AnalysisFault):
    """The answer did not fit."""


class AnswerUnreadable(AnalysisFault):
    """The answer is no JSON of our shape."""

    retryable = True
