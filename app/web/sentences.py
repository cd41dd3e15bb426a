"""What a caller hears when no agent can speak. Spoken by the carrier; an adopter puts their own words here.

Rule: a sentence says what happens next. It promises nothing that we do not do, and it names no cause that a caller cannot use.
"""

FULL_HOUSE = (
    "All of our lines are busy right now. Please enter the number where we can call you back, followed by the pound key. "
    "Or hang up and try again later."
)
NUMBER_TAKEN = "Thank you. We have noted your number. Goodbye."
NO_NUMBER = "We have no number from you. Please try again later. Goodbye."
DRAINING = "We cannot take your call at this very moment. Please call again in a minute. Goodbye."
UNKNOWN_AGENT = "This number is not in service. Goodbye."
MODEL_UNAVAILABLE = "We cannot take your call right now. Please try again in a few minutes. Goodbye."
OUT_OF_ORDER = "We are sorry, we have a technical problem and cannot take your call. Please try again in a few minutes. Goodbye."
APOLOGY = "We are sorry, we have a technical problem and must end this call. Please call again. Goodbye."
ONE_MOMENT = "One moment, please."
