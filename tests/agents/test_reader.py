"""The agents' folder is checked whole, and every complaint says where."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agents.front_matter import Unreadable, read
from app.agents.reader import HOUSE_RULES, read_agents
from app.call.agent import Agent, FloorPolicy, SlotKind, SlotSpec, ToolKind, ToolSpec, TurnTaking
from app.errors import BadAgent

ERRANDS = {
    name: ToolSpec(name=name, kind=ToolKind.ERRAND, description="An errand.", parameters={"type": "object"})
    for name in ("find_customer", "take_message")
}


def agents_of(folder: Path, files: dict[str, str], *, directory: tuple[str, ...] = ("manager",)) -> dict[str, Agent]:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return read_agents(folder, errands=ERRANDS, directory=directory, dispositions=("sold", "other"), intents=("buy",))


def complaints_of(folder: Path, files: dict[str, str]) -> list[tuple[str, int, str]]:
    with pytest.raises(BadAgent) as caught:
        agents_of(folder, files)
    assert str(caught.value).count("\n") + 1 == len(caught.value.complaints)
    return [(Path(file).name, line, sentence) for file, line, sentence in caught.value.complaints]


WHOLE = """+++
name = "desk"
voice = "marin"
greeting = "Say hello."
tools = [
    "find_customer",
    "take_message",
]
hands_off_to = ["sales"]
transfer = true

[floor]
turn_taking = "provider"
interruptible = false
protected_ms = 500
min_turn_ms = 0
silence_ms = 5_000
silence_prompts = 1

[[slots]]
name = "urgency"
kind = "choice"
choices = ["low", "high"]
required = true
description = "How urgent."

[[slots]]
name = "callback_number"
kind = "phone"
read_back = true
+++

Be the desk.
"""
PLAIN = "+++\n+++\nSell.\n"


def test_a_whole_file_becomes_a_whole_agent(tmp_path):
    agents = agents_of(tmp_path, {"front.md": WHOLE, "sales.md": PLAIN, "README.md": "# About these files"})
    assert list(agents) == ["desk", "sales"]
    desk = agents["desk"]
    assert desk.voice == "marin"
    assert desk.greeting == "Say hello."
    assert desk.hands_off_to == ("sales",)
    assert desk.floor == FloorPolicy(
        turn_taking=TurnTaking.PROVIDER, interruptible=False, protected_ms=500, min_turn_ms=0, silence_ms=5_000, silence_prompts=1
    )
    assert desk.floor.turn_taking is TurnTaking.PROVIDER
    assert desk.slots == (
        SlotSpec(name="urgency", kind=SlotKind.CHOICE, choices=("low", "high"), required=True, description="How urgent."),
        SlotSpec(name="callback_number", kind=SlotKind.PHONE, read_back=True),
    )
    assert [tool.name for tool in desk.tools] == [
        "find_customer", "take_message", "note_slot", "hand_off", "transfer_to_human", "end_call", "wait_for_caller",
    ]  # fmt: skip
    assert desk.tools[0] is ERRANDS["find_customer"]
    assert desk.version == hashlib.sha256(WHOLE.encode()).hexdigest()[:12]
    assert hash(desk) == hash(desk)


def test_what_a_file_does_not_say_is_left_to_the_contract(tmp_path):
    agent = agents_of(tmp_path, {"sales.md": PLAIN})["sales"]
    assert agent == Agent(name="sales", instructions=agent.instructions, tools=agent.tools, version=agent.version)
    assert [tool.name for tool in agent.tools] == ["end_call", "wait_for_caller"]


def test_the_model_is_given_the_house_rules_then_the_slots_then_the_files_own_text(tmp_path):
    text = agents_of(tmp_path, {"desk.md": WHOLE, "sales.md": PLAIN})["desk"].instructions
    assert text.startswith(HOUSE_RULES.read_text("utf-8").strip())
    assert text.endswith("\n\nBe the desk.")
    assert "- urgency (one of: low, high; required): How urgent.\n- callback_number (phone; read it back and hear a yes)" in text
    assert "AI assistant" in text


def test_windows_line_ends_and_a_byte_order_mark_are_read_alike(tmp_path):
    (tmp_path / "sales.md").write_bytes(b'\xef\xbb\xbf+++\r\nvoice = "x"\r\nvioce = 1\r\n+++\r\nSell.\r\n')
    assert complaints_of(tmp_path, {}) == [("sales.md", 3, "unknown key `vioce`; is `voice` meant?")]


def front(lines: str, text: str = "Talk.") -> str:
    return f"+++\n{lines}\n+++\n{text}\n"


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("Talk.\n", 1, "the file does not begin with a line +++, so it has no front matter"),
        ("", 1, "the file does not begin with a line +++, so it has no front matter"),
        ('+++\nname = "a"\n\nTalk.\n', 5, "the front matter is never closed: a second line +++ is missing"),
        (front('name = "a"\nvoice = '), 3, "the front matter is not TOML: invalid value"),
        (front('name = "a"\nname = "b"'), 3, "the front matter is not TOML: cannot overwrite a value"),
        (front("tools = [\n\n"), 4, "the front matter is not TOML: invalid value"),
        (front("\n# words\ntols = true"), 4, "unknown key `tols`; is `tools` meant?"),
        (front("\n# words\nxyzzy = true"), 4, "unknown key `xyzzy`; the keys here are"),
        (front('[floor]\nsilence = 1\n[[slots]]\nname = "a"'), 3, "unknown key `floor.silence`; is `silence_ms` meant?"),
        (front('[[slots]]\nname = "a"\n\n[[slots]]\nname = "b"\ntype = "text"'), 7, "unknown key `slots.type`; the keys here are"),
        (front('[[slots]]\nname = "a"\n\n[[slots]]\nkind = "text"'), 5, "`slots.name` is missing"),
        (front('[[slots]]\nname = "a"\n[slots.more]\nb = 1'), 4, "unknown key `slots.more`; the keys here are"),
        (front("slots = [\n  {name = 'a'},\n  {kind = 'text'},\n]"), 2, "`slots.name` is missing"),
        (front("name = 'Front Desk'"), 2, "`name` must match ^[a-z]"),
        (front("name = 7"), 2, "`name` must be a string"),
        (front("voice = ''"), 2, "`voice` must match"),
        (front(f"greeting = '{'x' * 1_001}'"), 2, "`greeting` must have at most 1,000 characters"),
        (front("tools = 'take_message'"), 2, "`tools` must be an array"),
        (front("tools = [\n  1,\n]"), 2, "`tools` must be a string"),
        (front("\ntransfer = 'yes'"), 3, "`transfer` must be true or false"),
        (front("floor = 1"), 2, "`floor` must be a table"),
        (front("[floor]\nturn_taking = 'theirs'"), 3, "`floor.turn_taking` must be 'ours' or 'provider'"),
        (front("[floor]\ninterruptible = 1"), 3, "`floor.interruptible` must be true or false"),
        (front("[floor]\nprotected_ms = 1.5"), 3, "`floor.protected_ms` must be a whole number"),
        (front("[floor]\nprotected_ms = 10_001"), 3, "`floor.protected_ms` must be at most 10,000"),
        (front("[floor]\nprotected_ms = -1"), 3, "`floor.protected_ms` must be at least 0"),
        (front("[floor]\nmin_turn_ms = 2_001"), 3, "`floor.min_turn_ms` must be at most 2,000"),
        (front("[floor]\nsilence_ms = 1_999"), 3, "`floor.silence_ms` must be at least 2,000"),
        (front("[floor]\nsilence_ms = 60_001"), 3, "`floor.silence_ms` must be at most 60,000"),
        (front("[floor]\nsilence_prompts = 6"), 3, "`floor.silence_prompts` must be at most 5"),
        (front("voice = 'x'\ntools = ['fly']"), 3, "unknown tool fly; the tools are find_customer, take_message"),
        (front("tools = ['end_call']"), 2, "end_call is a control, which every agent that can use it has"),
        (front("tools = ['take_message', 'take_message']"), 2, "the tool take_message stands in `tools` twice"),
        (front("hands_off_to = ['nobody']"), 2, "unknown agent nobody; the agents are a"),
        (front("hands_off_to = ['a']"), 2, "an agent cannot hand off to itself"),
        (front("[[slots]]\nname = 'x'\n[[slots]]\nname = 'x'"), 5, "there are two slots with the name x"),
        (front("[[slots]]\nname = 'X y'"), 3, "`slots.name` must match"),
        (front("[[slots]]\nname = 'x'\nkind = 'number'"), 4, "`slots.kind` must be 'text', 'phone' or 'choice'"),
        (front("[[slots]]\nname = 'x'\nkind = 'choice'"), 4, "a slot of the kind choice needs `choices`"),
        (front("[[slots]]\nname = 'x'\nchoices = ['y']"), 4, '`choices` are for a slot with kind = "choice"'),
        (front("[[slots]]\nname = 'x'\nkind = 'choice'\nchoices = ['y', 'Y']"), 5, "the choice y stands there twice"),
        (front("[[slots]]\nname = 'x'\nkind = 'choice'\nchoices = ['']"), 5, "`slots.choices` must not be empty"),
        (front("voice = 'x'", text="\n  \n"), 3, "the instructions are empty"),
        (front("voice = 'x'", text="\n" + "word " * 14_000), 5, "instructions and tools are too long: about"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path, file, line, sentence):
    ((name, at, said),) = complaints_of(tmp_path, {"a.md": file})
    assert (name, at) == ("a.md", line), said
    assert said.startswith(sentence)


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    files = {
        "a.md": front(
            "voice = 3\ntools = ['fly', 'swim']\nhands_off_to = ['b', 'zed']\n[[slots]]\nname = 'x'\n[[slots]]\nname = 'x'"
        ),
        "b.md": "no front matter\n",
        "c.md": front("name = 'a'", text=""),
    }
    assert [(file, line) for file, line, _ in complaints_of(tmp_path, files)] == [
        ("a.md", 2), ("a.md", 3), ("a.md", 3), ("a.md", 4), ("a.md", 8), ("b.md", 1), ("c.md", 2), ("c.md", 3),
    ]  # fmt: skip


def test_two_agents_cannot_have_one_name(tmp_path):
    assert complaints_of(tmp_path, {"a.md": PLAIN, "b.md": front("voice = 'x'\nname = 'a'")}) == [
        ("b.md", 3, "the name a is taken by a.md")
    ]


def test_who_hands_off_to_a_broken_file_is_not_blamed(tmp_path):
    complaints = complaints_of(tmp_path, {"a.md": front("hands_off_to = ['b']"), "b.md": "broken"})
    assert [file for file, _, _ in complaints] == ["b.md"]


def test_a_file_that_is_no_text_is_said_with_the_line_of_the_first_bad_byte(tmp_path):
    (tmp_path / "a.md").write_bytes(b"+++\n+++\nTalk.\n\xff\n")
    assert complaints_of(tmp_path, {}) == [("a.md", 4, "the file is not UTF-8 text")]


def test_a_folder_without_agents_is_said(tmp_path):
    assert [sentence for _, _, sentence in complaints_of(tmp_path, {"README.md": "x", "notes.txt": "y"})] == [
        "the folder holds no agent file (*.md)"
    ]


def test_without_a_directory_an_agent_cannot_transfer(tmp_path):
    agents = agents_of(tmp_path, {"desk.md": WHOLE, "sales.md": PLAIN}, directory=())
    assert agents["desk"].tool("transfer_to_human") is None


@given(st.text(max_size=200))
def test_no_text_whatever_breaks_the_reading_of_front_matter(text):
    for candidate in (text, f"+++\n{text}\n+++\n{text}"):
        try:
            matter = read(candidate)
        except Unreadable as fault:
            assert 1 <= fault.line <= candidate.count("\n") + 1
        else:
            assert all(1 < line <= candidate.count("\n") + 1 for line in matter.lines.values())
            assert 1 <= matter.text_line <= candidate.count("\n") + 1


def test_each_key_is_found_on_the_line_where_its_statement_begins():
    text = """+++
a = \"\"\"
b = 1
\"\"\"
"c d".e = [
  # f = 1
  2,
]

[t]  # comment
g = {h = 1}
[t.u]
i = 1
[[v]]
[[v]]
j = 1
+++
"""
    matter = read(text)
    assert {path: line for path, line in matter.lines.items() if path[-1] != "v"} == {
        ("a",): 2, ("c d",): 5, ("c d", "e"): 5, ("t",): 10, ("t", "g"): 11, ("t", "g", "h"): 11, ("t", "u"): 12,
        ("t", "u", "i"): 13, ("v", 0): 14, ("v", 1): 15, ("v", 1, "j"): 16,
    }  # fmt: skip
    assert matter.line("v", 1, "missing") == 15
    assert matter.line("nowhere") == 1
