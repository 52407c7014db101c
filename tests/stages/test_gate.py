"""What is said of a target that is down, on the clock of the test."""

import re

import pytest

from flow.outcome import Unavailable
from flow.stages.gate import Gates
from tests.messages import ManualClock


def test_a_target_that_stays_down_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Else ten minutes of silence look like a program that does nothing."""
    clock = ManualClock()
    gates = Gates("leaflets", 1, clock, lambda: None)

    for _ in range(12):
        gates.ended("acme", gates.start("acme"), Unavailable("away", after=10.0))
        clock.advance(10.0)

    assert [re.sub(r"\d+\.\d s", "N s", one) for one in caplog.messages] == [
        "leaflets (acme): the target is down, trying again in N s: away",
        "leaflets (acme): the target is down for 60 s, trying again in N s: away",
    ]
