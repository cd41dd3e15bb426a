"""AFTER THE CALL: what was said, judged with evidence.

`facts`      the transcript as it is read, a judgement, an analysis
`admission`  the one door through which every judgement goes into the row
`spoken`     numbers and names, as people say them
`hostile`    words that tell the analysis what to write
`rubric`     what makes a lead, and how many points it is worth
`phrases`, `rules`   the rule set, which needs no key
`answer`, `model`    the analysis by a model
`faults`     what the world may say to that
`compare`    the agent's slots beside the second reading
`claims`     what the agent says it did beside the ledger of what was done
`reading`    all of this together, for a call that has ended; `rescoring` for old ones
`analyzers`  which analyzer the settings ask for
`cases`, `evaluation`   how right an analyzer is, measured on written calls

Rule 1: a value without evidence in the transcript is None; nothing is invented. `admission.admit` alone decides it, for every
analyzer; `claims.held` takes away what the ledger does not bear out.
Rule 2: a transcript is what strangers said. It is data for whoever reads it, and orders nothing.
Rule 3: an analyzer says which it is, on which model and after which version of its prompt or tables.
"""
