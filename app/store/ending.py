"""How a call ended, when no bridge is left to say so: from what is stored and the carrier's last word.

Rule: pure. What nobody knows is not invented: the memory is the last one that was kept.
"""

from dataclasses import replace

from app.call.disposition import EndReason, Filed, Intent, Memory, Outcome, Slot, outcome_of
from app.store.calls import CallState

# DialCallStatus of a transfer that a person took (Twilio's documentation).
TAKEN = frozenset({"completed", "answered"})


def turned_away(state: CallState) -> bool:
    """The doors answered this call with a sentence, and it is not over yet: a number may still be left.

    No bridge ever plans a step for a call whose stream it has not claimed; the doors do, for exactly this.
    """
    return not state.final and state.claimed_epoch == 0 and state.next_step is Intent.HANG_UP


def filed(state: CallState, reason: EndReason, now: int, memory: Memory | None = None) -> Filed:
    """The finished fact, for a reason that is known. `now` is milliseconds since 1970."""
    memory = memory or remembered(state)
    outcome = outcome_of(reason, caller_spoke=memory.caller_spoke)
    if state.claimed_epoch == 0 and reason in (EndReason.MODEL_UNAVAILABLE, EndReason.DRAINED):
        outcome = Outcome.TURNED_AWAY  # no agent ever spoke; the doors said a sentence
    return Filed(outcome=outcome, end_reason=reason, memory=memory, ended_at=max(0, now - born(state)))


def remembered(state: CallState) -> Memory:
    """What the call last knew of itself; for one that never talked, only who was to answer."""
    return state.memory or Memory(agent=state.agent, agent_path=(state.agent,))


def with_slot(memory: Memory, slot: Slot) -> Memory:
    """The memory with one thing more, in place of what was known of it before."""
    others = tuple(known for known in memory.slots if known.name != slot.name)
    return replace(memory, slots=(*others, slot), caller_spoke=True)


def reason_of(state: CallState, status: str, dialled: str | None = None) -> EndReason:
    """Why a call is over of which the carrier reports a terminal `status`, and `dialled`, how its transfer went."""
    if turned_away(state):
        return EndReason.FULL_HOUSE
    if state.next_step is Intent.TRANSFER and dialled in TAKEN:
        return EndReason.TRANSFERRED
    if status != "completed":
        return EndReason.CARRIER_ENDED
    if state.claimed_epoch == 0 and state.epoch > 1:
        return EndReason.NEVER_CONNECTED
    match state.next_step:
        case Intent.HANG_UP:
            return EndReason.AGENT_ENDED
        case Intent.APOLOGISE:
            return EndReason.MODEL_UNAVAILABLE
    return EndReason.CALLER_HUNG_UP


def born(state: CallState) -> int:
    """The call's birth, in milliseconds since 1970."""
    return int(state.started_at.timestamp() * 1_000)
