"""THE ERRANDS: what an agent can do in the world. `toolbox` checks, runs and records; each family has a module beside it.

Rule 1: this layer is the security boundary. What the model sends is what a caller may have said: hostile until checked.
Rule 2: who the caller is, their number and what they confirmed is the server's state (`ErrandContext`), never an argument.
Rule 3: every errand is in the ledger; an errand with an effect is there before it begins, and happens at most once.
Rule 4: what a tool answers is small, and data for the model; what it refuses is one sentence with nothing private in it.

To add a tool:

1. Say what the model may choose, as a class of `Arguments`. Every field gets a description and a bound on its length. No field says
   who somebody is or which number is meant: rule 2.

       class CancelAppointment(Arguments):
           reason: str = Field(max_length=200, description="Why, in the caller's words.")

2. Write what it does. `errand.context` is the call; `errand.tool_call` is the key by which another system can tell a repeat.
   Return a small mapping. Raise `ToolRefused("One sentence for the model.")` to say no before anything has happened; let any
   other exception fly, the toolbox turns it into a neutral sentence.

       async def cancel(self, arguments: CancelAppointment, errand: Errand) -> Mapping[str, Any]:
           return {"cancelled": await self._calendar.cancel(errand.context.caller_number, key=errand.tool_call)}

3. Declare it, and give it to the `Toolbox` with the others: what the model reads about it, how long it may take in all, whether it
   changes something (`effect`), and whether it may be tried again after the world said "not now" (`safe_to_retry`: only what does
   no more when done twice).

       Tool(name="cancel_appointment", description="...", arguments=CancelAppointment, run=self.cancel, effect=True)

4. Name it in `tools = [...]` of each agent that may use it. Nobody else can, whatever the model says.
"""
