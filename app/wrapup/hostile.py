"""Words that tell the analysis what to write. They are no evidence of anything but that they were said.

A table and no more: it is the second line of defence, and a caller who is clever enough passes it. The first is the shape of the
thing (see `rubric`, `admission`): no score can be asked for, every word is of a closed list, every value rests on lines that exist.
A line that holds both an order and a real wish is given up as evidence for what is judged; what is only said (name, number, reason)
may still be taken from it.
"""

import re

from app.wrapup.spoken import plain

OF_THE_RECORD = re.compile(
    r"\b("
    r"(lead )?scores? (is|to|of|at|shall|should|must|now)\b|lead scores?|score me|rate me|rating to|"
    r"(the|your|my|this) (disposition|sentiment|urgency|confidence|escalation|transcript|judgement|judgment|evaluation) "
    r"(is|to|must|shall|should|will|of this)\b|"
    r"(disposition|sentiment|urgency|intent|escalation) (is |to |as )?"
    r"(appointment booked|sales lead|high|low|normal|positive|negative|buy)\b|"
    r"(mark|file|log|flag|record|classify|score|rate) (me|this|this call|the call|it) (as|down as|with)\b|"
    r"write (that|down that|in (the|your) (report|summary|row))|when you write (the|your)|(in|for) (the|your) (report|summary)|"
    r"must be escalated|end of (the )?transcript|new rules? for (the|your) (evaluator|model|machine|ai|analysis)|"
    r"the evaluator\b|system prompt|developer mode"
    r")"
)
OF_THE_RULES = re.compile(
    r"\b(ignore|disregard|forget|override|bypass)\b.{0,40}\b(instructions?|rules?|prompts?|guidelines|guardrails|training)\b|"
    r"\b(system|assistant|user|developer|evaluator) colon\b|"
    r"\b(note|message|order|instruction|command)s? (for|to|from) (the|your|my) "
    r"(machine|model|ai|evaluator|analyst|analysis|developers?|administrators?)\b|"
    r"\byou are now (a|an|the|in|my)\b"
)
ROLE_MARKER = re.compile(r"(?im)^\s*(system|assistant|developer|user)\s*:|<\|?/?\s*(system|im_start|im_end|instructions?)\b|```")


def is_order_to_us(text: str) -> bool:
    """Whether a caller's words are about the record or the rules of who reads it."""
    words = plain(text)
    return bool(OF_THE_RECORD.search(words) or OF_THE_RULES.search(words) or ROLE_MARKER.search(text))
