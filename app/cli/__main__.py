"""`python -m app.cli` is `callrow`."""

from app.cli import main

main(prog_name="callrow")
