"""THE STORE: tables, calls, the journal, the ledger of tools. SQLAlchemy never leaves it: facts go in, facts come out."""
