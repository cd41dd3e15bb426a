"""The rehearsal: a pretend carrier and a pretend model, real servers on loopback; and callers, as scenes.

Rule 1: nothing here is imported by the service, and nothing of the service but `errors` and `logs` is imported here.
The two meet only through configured addresses, so that one misreading of a protocol cannot hide on both sides.
Rule 2: what speaks (`voice`, espeak-ng, GPL-3) and what hears (`ears`, PocketSphinx) runs in processes of the
rehearsal's own.
"""
