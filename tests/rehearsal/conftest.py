"""What the tests of the rehearsal share."""

import pytest

from app.rehearsal.hearing import Recognisers


@pytest.fixture(scope="session")
def recognisers() -> Recognisers:
    """Shared by all tests of a process: one takes a while to make, and hears each utterance afresh."""
    return Recognisers()
