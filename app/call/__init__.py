"""THE CALL: a pure machine. Standard library only: no await, no clock, no dice, no vendor's word."""
