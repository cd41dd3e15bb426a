"""What the tests of the rehearsal share."""

import pytest

from app.rehearsal.hearing import Recogniser


@pytest.fixture(scope="session")
def recogniser() -> Recogniser:
    """One for all tests of a process: it takes a while to make, and hears each utterance afresh."""
    return Recogniser()


@pytest.fixture(autouse=True)
def _nobody_is_speaking(request: pytest.FixtureRequest) -> None:
    """A test may have ended in the middle of an utterance."""
    if "recogniser" in request.fixturenames:
        request.getfixturevalue("recogniser").drop()
