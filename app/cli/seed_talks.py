"""What is said in seeded calls: invented people of an invented town, who call Linden Gardens.

Rule 1: nobody here is a real person, and every number is +1555..., which no carrier gives to anybody.
Rule 2: a talk follows from its dice alone: the same seed, the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from app.call.disposition import EndReason

FIRST = (
    *("Maria", "James", "Aisha", "Peter", "Lena", "Tom", "Grace", "Omar", "Nina", "Victor", "Ruth", "Daniel", "Priya", "Carlos"),
    *("Hannah", "George", "Mei", "Samuel", "Olga", "Frank", "Ines", "Walter", "Joan", "Andre", "Eva", "Luis", "Kate", "Ivan"),
)
LAST = (
    *("Lopez", "Baker", "Khan", "Novak", "Schneider", "Olsen", "Murphy", "Haddad", "Rossi", "Petrov", "Ellis", "Moreau", "Patel"),
    *("Garcia", "Weber", "Hughes", "Chen", "Okafor", "Larsen", "Fischer", "Santos", "Young", "Marsh", "Dubois", "Castro", "Reed"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
HOURS = ("nine", "half past nine", "ten", "eleven", "one", "two", "half past two", "three", "four")
GREETING = "Linden Gardens, hello! This is Ivy, the AI assistant. How can I help you?"
ROBIN = "Hello, this is Robin, I plan new projects here. What do you have in mind?"


@dataclass(slots=True)
class Line:
    """One utterance. `cut`: the share of an agent's words that was heard before the caller spoke."""

    speaker: str
    text: str | None
    agent: str | None = None
    cut: float | None = None


@dataclass(slots=True)
class Tool:
    """An errand that runs before the agent's line of that number."""

    name: str
    arguments: dict[str, str]
    result: dict[str, object] | None
    before: int
    effect: bool = False
    status: str = "done"


@dataclass(slots=True)
class Talk:
    """One conversation, and what the agent filed of it. `slots`: name, value, line (from 0) and whether it was confirmed."""

    person: str
    number: str
    ended: EndReason = EndReason.AGENT_ENDED
    lines: list[Line] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    slots: list[tuple[str, str, int, bool]] = field(default_factory=list)
    agents: list[str] = field(default_factory=lambda: ["front-desk"])
    disposition: str | None = None
    intent: str | None = None
    summary: str | None = None
    next_action: str | None = None
    escalated: bool = False
    transfer_to: str | None = None

    def says(self, text: str, *, cut: float | None = None) -> None:
        """The agent who has the call."""
        self.lines.append(Line("agent", text, self.agents[-1], cut))

    def caller(self, text: str | None) -> int:
        """The caller; gives the line's number."""
        self.lines.append(Line("caller", text))
        return len(self.lines) - 1

    def runs(self, name: str, arguments: dict[str, str], result: dict[str, object] | None, **other: object) -> None:
        """An errand, before what the agent says next."""
        self.tools.append(Tool(name, arguments, result, len(self.lines), **other))  # type: ignore[arg-type]

    def notes(self, name: str, value: str, line: int, *, confirmed: bool = False) -> None:
        """A slot."""
        self.slots = [slot for slot in self.slots if slot[0] != name] + [(name, value, line, confirmed)]


class Writer:
    """Writes talks."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice

    def talk(self) -> Talk:
        """Somebody calls."""
        (write,) = self._dice.choices([each for each, _ in SCENES], [share for _, share in SCENES])
        talk = Talk(person=self.person(), number=self.number())
        talk.says(GREETING, cut=self._dice.choice((0.4, 0.6, 0.8)) if self._dice.random() < 0.18 else None)
        write(self, talk)
        return talk

    def silent(self, ended: EndReason) -> Talk:
        """Nobody says anything."""
        talk = Talk(person=self.person(), number=self.number(), ended=ended)
        if ended in (EndReason.CALLER_HUNG_UP, EndReason.SILENCE, EndReason.WORKER_LOST):
            talk.says(GREETING, cut=0.5 if ended is EndReason.CALLER_HUNG_UP else None)
        if ended is EndReason.SILENCE:
            talk.says("Are you still there?")
            talk.says("I cannot hear you. Please call again. Goodbye!")
        return talk

    def person(self) -> str:
        """A name."""
        return f"{self._dice.choice(FIRST)} {self._dice.choice(LAST)}"

    def number(self) -> str:
        """A number."""
        return f"+1555{self._dice.randrange(2_000_000, 9_999_999)}"

    # ---- parts

    def pick(self, *choices: str) -> str:
        """One of them."""
        return self._dice.choice(choices)

    def chance(self, share: float) -> bool:
        """Whether it happens."""
        return self._dice.random() < share

    def matter(self, talk: Talk, text: str) -> None:
        """Why they call."""
        talk.notes("reason", text.rstrip(".?!"), talk.caller(text))

    def ask_name(self, talk: Talk) -> None:
        """The name, first and last."""
        talk.says(self.pick("May I have your first and last name?", "And your first and last name, please?"))
        line = talk.caller(self.pick(f"{talk.person}.", f"My name is {talk.person}.", f"Sure, it's {talk.person}."))
        talk.notes("name", talk.person, line)

    def ask_number(self, talk: Talk) -> None:
        """The number, read back; one in twenty is noted with a digit wrong, as it happens."""
        told = f"{talk.number[2:5]} {talk.number[5:8]} {talk.number[8:]}"
        talk.says(f"Thank you, {talk.person.split()[0]}. Under which number can we reach you?")
        line = talk.caller(f"{told}.")
        talk.says(f"That is {told}. Is that right?", cut=0.7 if self.chance(0.15) else None)
        talk.caller(self.pick("Yes, that's right.", "Yes.", "Correct."))
        noted = talk.number if not self.chance(0.05) else talk.number[:-1] + str((int(talk.number[-1]) + 1) % 10)
        talk.notes("callback_number", noted, line, confirmed=True)

    def urgency(self, talk: Talk, word: str) -> None:
        """As the agent judged it."""
        if talk.slots:
            talk.notes("urgency", word, talk.slots[0][2])

    def goodbye(self, talk: Talk, *thanks: str) -> None:
        """The end."""
        talk.caller(self.pick(*(thanks or ("Thank you so much, that was very helpful.", "Thanks, bye.", "Okay, thank you. Bye."))))
        talk.says(self.pick("You're welcome. Goodbye!", "Thank you for calling. Have a good day!"))
        talk.ended = EndReason.CALLER_HUNG_UP if self.chance(0.35) else EndReason.AGENT_ENDED


def books(writer: Writer, talk: Talk) -> None:
    """An appointment."""
    what = writer.pick(
        "my hedge", "the apple trees", "our lawn", "two old lilacs", "the roses along the fence", "the ivy on our house"
    )
    day, hour = writer.pick(*DAYS), writer.pick(*HOURS)
    writer.matter(
        talk,
        writer.pick(
            f"I'd like to book an appointment, {what} should be cut back.",
            f"Hi, I need somebody to look after {what}. Can I book a visit?",
            f"I would like somebody to come by and look at {what}.",
        ),
    )
    talk.runs("find_customer", {}, {"found": False} if writer.chance(0.6) else {"found": True, "name": talk.person})
    writer.ask_name(talk)
    writer.ask_number(talk)
    talk.runs("offer_appointments", {"day": day.lower()}, {"openings": [{"spoken": f"{day} at {hour}"}]})
    talk.says(f"I can offer {day} at {hour}. Would that suit you?", cut=0.6 if writer.chance(0.2) else None)
    if writer.chance(0.04):
        talk.caller("Yes, perfect.")
        talk.runs("book_appointment", {"opening": hour}, None, effect=True, status="failed")
        talk.says("I am sorry, the calendar does not answer just now. Somebody will call you back about the appointment.")
        talk.disposition, talk.next_action = "callback_requested", f"Call {talk.person} back and book the visit."
    else:
        talk.caller(writer.pick("Yes, perfect.", "That sounds good.", "Yes, that works."))
        talk.runs("book_appointment", {"opening": hour}, {"booked": True, "spoken": f"{day} at {hour}"}, effect=True)
        talk.says(f"It's booked: {day} at {hour}. Is there anything else?")
        talk.disposition, talk.next_action = "appointment_booked", f"Visit {talk.person} on {day}."
    talk.intent = "book_appointment"
    talk.summary = f"{talk.person} wants {what} looked after; a visit on {day} at {hour}."
    writer.urgency(talk, "normal")
    writer.goodbye(talk)


def sells(writer: Writer, talk: Talk) -> None:
    """A new project, handed to sales."""
    what = writer.pick(
        "a new terrace", "a pond", "a new garden behind our house", "raised beds", "a watering system", "a stone path"
    )
    budget = writer.pick("eight thousand dollars", "about twelve thousand dollars", "twenty thousand dollars")
    writer.matter(
        talk,
        writer.pick(f"Hello, I'd like a quote for {what}.", f"Do you build something like {what}? I'd like an offer for it."),
    )
    talk.says("I'll put you through to Robin, who plans new projects with you.")
    talk.agents.append("sales")
    talk.says(ROBIN, cut=0.5 if writer.chance(0.2) else None)
    keen = writer.chance(0.55)
    if keen:
        talk.caller(
            f"We bought a house and want {what}, about {writer.pick('six', 'eight', 'twelve')} metres long, before the summer."
        )
        talk.says("That sounds lovely. Do you have a budget in mind?")
        talk.caller(f"We have set aside {budget}. I'm the owner, so I decide.")
    else:
        talk.caller("I'm just looking, nothing definite. I am comparing a few companies.")
        talk.says("Of course. When would you like to have it?")
        talk.caller("Maybe next year, no hurry.")
    writer.ask_name(talk)
    writer.ask_number(talk)
    talk.runs("take_message", {"message": f"Project: {what}"}, {"taken": True}, effect=True)
    talk.says("I have noted your project. One of our designers gets in touch with you this week.")
    talk.intent, talk.disposition = "buy", "sales_lead"
    talk.summary = f"{talk.person} wants {what}" + (f" and has set aside {budget}." if keen else ", only looking around for now.")
    talk.next_action = f"Have a designer call {talk.person} this week."
    writer.urgency(talk, "high" if keen and writer.chance(0.2) else "normal" if keen else "low")
    writer.goodbye(talk, *(("Wonderful, looking forward to it. Thank you so much.",) if keen else ("Okay, bye.",)))


def leaves_a_message(writer: Writer, talk: Talk) -> None:
    """Word for somebody."""
    about = writer.pick(
        "I'd like to leave a message for the workshop, my mower is ready to be picked up.",
        "Can you take a message? I have to move our appointment on Thursday.",
        "I want to cancel my appointment for next week.",
        "Could you pass on a message, the gate code has changed.",
    )
    writer.matter(talk, about)
    writer.ask_name(talk)
    writer.ask_number(talk)
    status = "failed" if writer.chance(0.03) else "done"
    talk.runs("take_message", {"message": about}, {"taken": True} if status == "done" else None, effect=True, status=status)
    if status == "done":
        talk.says("I have taken your message and passed it on. Somebody will call you back if there is a question.")
        talk.disposition = "message_taken"
    else:
        talk.says("I am sorry, I could not pass that on just now. Please call again a little later.")
        talk.disposition = "other"
    talk.intent = "leave_message" if "message" in about else "support"
    talk.summary, talk.next_action = f"{talk.person}: {about}", f"See to the message of {talk.person}."
    writer.urgency(talk, "normal")
    writer.goodbye(talk)


def asks(writer: Writer, talk: Talk) -> None:
    """A question."""
    question, answer = writer._dice.choice(
        (
            ("Hi, do you also look after ponds?", "Yes, we build and look after ponds."),
            ("What does a first visit cost?", "A first visit takes about an hour and costs nothing."),
            ("When are you open, I wanted to know?", "Visits are by appointment, from Monday to Friday."),
            ("Do you cut trees as well?", "Yes, we do tree and hedge work."),
        )
    )
    writer.matter(talk, question)
    talk.says(answer, cut=0.5 if writer.chance(0.2) else None)
    if writer.chance(0.4):
        talk.caller(writer.pick("And how much is that by the hour?", "How much would that be?"))
        talk.says("There is no price list; a price follows a visit. Would you like to book one?")
        talk.caller("Not yet, I just wanted to know.")
        talk.says("That is fine.")
    talk.intent, talk.disposition = "other", "information_given"
    talk.summary = f"A question: {question}"
    writer.urgency(talk, "low")
    writer.goodbye(talk, "Great, thanks a lot.", "Okay, thank you.")


def complains(writer: Writer, talk: Talk) -> None:
    """Something went wrong, and they are not pleased."""
    writer.matter(
        talk,
        writer.pick(
            "This is the third time I call, nobody showed up on Tuesday. This is unacceptable.",
            "I am not happy at all. The last invoice is far too high.",
            "Your people damaged my fence and nobody called me back.",
        ),
    )
    talk.says("I am very sorry about that. I will pass it on to the manager at once.", cut=0.3)
    talk.caller(
        writer.pick(
            "I want to speak to your manager, I don't want to talk to a machine.",
            "If nobody calls me today I will talk to my lawyer.",
            "I am really annoyed, this is ridiculous.",
        )
    )
    writer.ask_name(talk)
    writer.ask_number(talk)
    talk.intent, talk.escalated = "complaint", True
    talk.summary, talk.next_action = f"{talk.person} complains.", f"The manager calls {talk.person} back today."
    writer.urgency(talk, "high")
    if writer.chance(0.45):
        talk.says("I am transferring you to the manager now. One moment.")
        talk.disposition, talk.ended, talk.transfer_to = "transferred", EndReason.TRANSFERRED, "manager"
        return
    talk.runs("take_message", {"message": "A complaint"}, {"taken": True}, effect=True)
    talk.says("I have taken the message and passed it on as urgent. The manager will call you back today.")
    talk.disposition = "message_taken"
    talk.caller(writer.pick("We'll see about that.", "I hope so. Bye."))
    talk.ended = EndReason.CALLER_HUNG_UP


def wants_a_person(writer: Writer, talk: Talk) -> None:
    """Put through."""
    writer.matter(talk, writer.pick("Can you connect me with the sales team, please?", "Put me through to the workshop, please."))
    talk.says("Gladly. I am connecting you now. One moment, please.")
    talk.intent, talk.disposition, talk.ended = "support", "transferred", EndReason.TRANSFERRED
    talk.summary, talk.transfer_to = "Wanted to be put through, and was.", "sales"


def wants_a_call(writer: Writer, talk: Talk) -> None:
    """To be called back."""
    urgent = writer.chance(0.3)
    writer.matter(
        talk,
        "A pipe of the watering system has burst, please call me back today, it is urgent."
        if urgent
        else "Could somebody call me back about the hedge you planted?",
    )
    writer.ask_name(talk)
    writer.ask_number(talk)
    talk.runs("take_message", {"message": "Call back"}, {"taken": True}, effect=True)
    talk.says("I have passed it on" + (" as urgent" if urgent else "") + ". Somebody will call you back.")
    talk.intent, talk.disposition, talk.escalated = "support", "callback_requested", urgent
    talk.summary, talk.next_action = (
        f"{talk.person} asks for a call back.",
        f"Call {talk.person} back" + (" at once." if urgent else "."),
    )
    writer.urgency(talk, "high" if urgent else "normal")
    writer.goodbye(talk)


def misdials(writer: Writer, talk: Talk) -> None:
    """A wrong number."""
    talk.caller(writer.pick("Is this the dentist?", "Hello, I'd like to order a pizza."))
    talk.says("This is Linden Gardens, I am afraid you have the wrong number.")
    talk.caller("Oh, sorry, wrong number.")
    talk.says("No harm done. Goodbye!")
    talk.intent, talk.disposition, talk.summary = "wrong_number", "wrong_number", "A wrong number."


def declines(writer: Writer, talk: Talk) -> None:
    """Not interested, or says nothing that can be used."""
    writer.matter(talk, "You sent me an offer for a pond. I'm not interested, please don't call again.")
    talk.says("I have noted that. We will not call you again.")
    talk.caller("Good. Bye.")
    talk.intent, talk.disposition, talk.ended = "other", "not_interested", EndReason.CALLER_HUNG_UP
    talk.summary = "Does not want the pond, and no more calls."


SCENES: tuple[tuple[Callable[[Writer, Talk], None], int], ...] = (
    (books, 30), (sells, 18), (leaves_a_message, 16), (asks, 14), (complains, 6), (wants_a_person, 5), (wants_a_call, 6),
    (misdials, 3), (declines, 2),
)  # fmt: skip
