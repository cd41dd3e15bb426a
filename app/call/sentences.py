"""What the call asks the agent to say when it is not the caller who gives the occasion, and what the house says when no agent can.

The first are instructions to the model, not scripts. The second are names: the words and the sound are `audio/lines`'.
"""

TAKEN_OVER = "You have just taken over this call from a colleague. Introduce yourself in a few words and go on."
CUT_OFF = "The line was interrupted. Apologise in a few words for being cut off, and go on where you were."
NOBODY_THERE = "Nobody could be reached to take the call. Say so, and offer to take a message or to help yourself."
STILL_THERE = "The caller has been silent. Ask in one short sentence whether they are still there."
SILENT = "The caller says nothing. Say goodbye in one short sentence."
NOISE = "There is so much noise on the line that you cannot make out the caller. Say so in one short sentence."
TIME_IS_UP = "Tell the caller in one short sentence that the call has to end now, and say goodbye."
SPOKE_ON = "The caller spoke before the line was closed. The call goes on; do not end it yet."
GO_ON = (
    "You were broken off in the middle of what you were saying; the caller has heard it up to there. Go on from exactly there. "
    "Do not greet the caller again and do not repeat what was said."
)
SAY_AGAIN = "You could not hear what the caller said last. Ask them in one short sentence to say it again."
HEARD_ONLY = "The caller interrupted your last sentence, and heard of it only: "
CALL_BACK_NEXT = "Call the caller back: the call was broken off by a technical fault."

ONE_MOMENT = "one_moment"
STILL_HERE = "still_here"
WE_WERE_CUT_OFF = "cut_off"
PUTTING_THROUGH = "putting_through"
CALLING_BACK = "calling_back"
CANNOT_GO_ON = "cannot_go_on"
GOODBYE = "goodbye"
LINES = (ONE_MOMENT, STILL_HERE, WE_WERE_CUT_OFF, PUTTING_THROUGH, CALLING_BACK, CANNOT_GO_ON, GOODBYE)
