"""Callrow: every phone call answered; every call one row. The house and its floors are drawn in README.md."""

__version__ = "0.1.0"
