"""Numbers and names, as people say them: what a value must be compared with before it may be called said.

Rule 1: nothing here guesses. A digit is there because it was written or spoken as a number word; a word cut off is no word.
Rule 2: only what is spoken in English is understood; digits that a transcription writes as digits are understood in any language.
"""

import re
import unicodedata

import phonenumbers

UNITS = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "nil": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16",
    "seventeen": "17", "eighteen": "18", "nineteen": "19",
}  # fmt: skip
TENS = {
    "twenty": "2", "thirty": "3", "forty": "4", "fifty": "5", "sixty": "6", "seventy": "7", "eighty": "8", "ninety": "9",
}  # fmt: skip
TIMES = {"double": 2, "triple": 3, "treble": 3}
HUNDREDS = {"hundred": "00", "thousand": "000"}
BETWEEN_DIGITS = frozenset(("um", "uh", "er", "and", "then", "dash", "hyphen", "area", "code"))
TOKEN = re.compile(r"\+|\d+|[^\W\d_]+")
CUT_OFF = re.compile(r"\b\w+(?:--|–|—|…)(?=\s|$)")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SPELT = re.compile(r"(?<![\w'’])[^\W\d_](?:[\s.,-]+[^\W\d_]\b)+")
TITLES = frozenset(("mr", "mrs", "ms", "miss", "dr", "doctor", "mister"))


def runs(text: str) -> list[str]:
    """The digits of a text, in runs that are broken by other words. A run that begins with a spoken or written plus keeps it."""
    found, run = [], ""
    tokens = TOKEN.findall(CUT_OFF.sub(" ", text).casefold())
    at = 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if token in ("+", "plus"):
            found.append(run)
            run = "+"
        elif token.isdecimal():
            run += token
        elif token in UNITS:
            run += UNITS[token]
        elif token in TEENS:
            run += TEENS[token]
        elif token in TENS:
            has_unit = following in UNITS and UNITS[following] != "0"
            run += TENS[token] + (UNITS[following] if has_unit else "0")
            at += has_unit
        elif token in TIMES and following in UNITS:
            run += UNITS[following] * TIMES[token]
            at += 1
        elif token in HUNDREDS and run:
            run += HUNDREDS[token]
        elif token not in BETWEEN_DIGITS:
            found.append(run)
            run = ""
    found.append(run)
    return [each for each in found if each.strip("+")]


def digits(text: str) -> str:
    """All digits of a text in one string."""
    return "".join(run.removeprefix("+") for run in runs(text))


def e164(number: str, region: str) -> str | None:
    """A number in E.164; None if it is none, or not a whole one. Numbers kept for fiction and tests count as numbers."""
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def number_is_said(number: str, said: str) -> bool:
    """Whether the digits of a number in E.164 occur in a text, with or without the country's own."""
    parsed = phonenumbers.parse(number)
    return phonenumbers.national_significant_number(parsed) in digits(said)


def plain(text: str) -> str:
    """A text for comparing words: one spelling of each character, no case, no punctuation, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in folded).split())


def name_is_said(name: str, said: str) -> bool:
    """Whether every part of a name occurs in a text as a word, or spelt letter by letter. Titles need not."""
    folded = unicodedata.normalize("NFKC", CUT_OFF.sub(" ", said)).casefold().replace("’", "'")
    spelt = {"".join(c for c in run if c.isalpha()) for run in SPELT.findall(folded)}
    words = {word.removesuffix("'s") for word in WORD.findall(folded)} | spelt
    parts = WORD.findall(unicodedata.normalize("NFKC", name).casefold().replace("’", "'"))
    asked = [part for part in parts if part not in TITLES]
    return bool(asked) and all(part in words for part in asked)


def quote_is_said(quote: str, said: str) -> bool:
    """Whether a text occurs word for word in another; an ellipsis may leave out what stands between two parts."""
    parts = [plain(part) for part in re.split(r"\.\.\.|…", quote)]
    asked = [part for part in parts if part]
    return bool(asked) and all(f" {part} " in f" {plain(said)} " for part in asked)
