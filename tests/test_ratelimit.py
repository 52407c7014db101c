"""How often the target may be called: time as a number."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.batching import Batching
from flow.errors import ConfigError
from flow.ratelimit import RateLimit, RateLimiter, TokenBucket
from flow.sizing import pace_warning
from tests.messages import MemoryOrigin

MESSAGE = MemoryOrigin().message(1)
SLACK = 1e-5  # for rounding


def starts(bucket: TokenBucket, amounts: list[float], now: float = 0.0) -> list[float]:
    """Return when each of *amounts* was taken by a caller that waits as told."""
    times = []
    for amount in amounts:
        while (delay := bucket.delay(amount, now)) > 0:
            now += delay
        times.append(now)
    return times


def test_below_the_limit_nothing_waits() -> None:
    """J01: one call in 10 s goes at once, and so does the next after 10 s."""
    bucket = TokenBucket(limit=1, per=10.0)

    assert bucket.delay(1, 0.0) == 0.0
    assert bucket.delay(1, 10.0) == 0.0


def test_above_the_limit_calls_wait_for_what_is_saved_up() -> None:
    """J02: two in 50 ms: two go at once, then one each 25 ms."""
    bucket = TokenBucket(limit=2, per=0.05)

    assert starts(bucket, [1, 1, 1, 1, 1]) == pytest.approx([0.0, 0.0, 0.025, 0.05, 0.075])


def test_a_delay_takes_nothing() -> None:
    """Asking again and again does not put the caller off further."""
    bucket = TokenBucket(limit=1, per=10.0)
    bucket.delay(1, 0.0)

    assert [bucket.delay(1, now) for now in (1.0, 1.0, 2.0, 9.0)] == [9.0, 9.0, 8.0, 1.0]
    assert bucket.delay(1, 10.0) == 0.0


def test_a_limit_is_shared_by_everybody_who_asks() -> None:
    """J03: four in each span altogether, however many callers there are."""
    limiter = RateLimiter(RateLimit(calls=4, per=1.0))

    through = [
        limiter.delay(limiter.key(MESSAGE), 1, 0.0) == 0.0 for _caller in range(2) for _call in range(4)
    ]

    assert through.count(True) == 4


def test_unused_quota_is_saved_up_for_one_span_only() -> None:
    """J04: three in 200 ms: after 500 ms without a call three go at once, not more."""
    bucket = TokenBucket(limit=3, per=0.2)

    times = starts(bucket, [1] * 7, now=0.5)

    assert times[:3] == [0.5, 0.5, 0.5]
    assert times[3:] == pytest.approx([0.5 + n * 0.2 / 3 for n in range(1, 5)])


@given(
    limit=st.floats(0.1, 1000),
    per=st.floats(0.01, 3600),
    calls=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), min_size=1, max_size=40),
    begin=st.floats(0, 1e7),
)
def test_what_is_let_through_stays_within_the_stated_bound(
    limit: float, per: float, calls: list[tuple[float, int]], begin: float
) -> None:
    """J04: in any span of s seconds at most limit * (1 + s / per), or the largest call + limit * s / per."""
    bucket = TokenBucket(limit, per)
    now = begin
    taken: list[tuple[float, int]] = []
    for pause, amount in calls:
        now += pause
        if delay := bucket.delay(amount, now):
            now += delay
            assert bucket.delay(amount, now) == 0.0, "the delay that was told is enough"
        taken.append((now, amount))

    for first in range(len(taken)):
        for last in range(first, len(taken)):
            span = taken[last][0] - taken[first][0] + SLACK
            through = sum(amount for _, amount in taken[first : last + 1])
            largest = max(amount for _, amount in taken[first : last + 1])
            assert through <= (max(limit, largest) + limit * span / per) * (1 + 1e-9)


def test_a_call_larger_than_the_limit_goes_when_the_bucket_is_full_and_is_paid_back() -> None:
    bucket = TokenBucket(limit=50, per=1.0)

    assert starts(bucket, [100, 10, 100]) == pytest.approx([0.0, 1.2, 2.2])


def test_messages_are_counted_or_calls() -> None:
    by_message = RateLimiter(RateLimit(messages=100, per=1.0))
    by_call = RateLimiter(RateLimit(calls=2, per=1.0))

    assert [by_message.delay(None, 60, 0.0) for _ in range(2)] == [0.0, pytest.approx(0.2)]
    assert [by_call.delay(None, 60, 0.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(0.5)]


def test_each_key_has_a_limit_of_its_own() -> None:
    origin = MemoryOrigin()
    limiter = RateLimiter(RateLimit(calls=1, per=10.0, key=lambda message: message.raw))
    one, other = origin.message(1), origin.message(2)

    assert [limiter.delay(limiter.key(message), 1, 0.0) for message in (one, other, one)] == [0.0, 0.0, 10.0]


def test_limits_of_keys_that_are_not_used_any_more_are_forgotten() -> None:
    """A limit per organisation or address must not grow for ever."""
    keys = iter(range(100_000))
    limiter = RateLimiter(RateLimit(calls=1, per=1.0, key=lambda message: next(keys)))

    for second in range(50):
        for _ in range(100):
            assert limiter.delay(limiter.key(MESSAGE), 1, float(second)) == 0.0

    assert len(limiter) <= 1100


def test_a_limit_in_use_is_not_forgotten() -> None:
    seen: list[object] = []
    limiter = RateLimiter(RateLimit(calls=1, per=1000.0, key=lambda message: seen[-1]))

    for number in range(3000):
        seen.append(number)
        limiter.delay(limiter.key(MESSAGE), 1, 0.0)
    waits = 0
    for number in range(3000):
        seen.append(number)
        waits += limiter.delay(limiter.key(MESSAGE), 1, 0.0) > 0

    assert waits == 3000


def test_what_is_set_aside_can_be_had_by_nobody_else() -> None:
    limiter = RateLimiter(RateLimit(messages=10, per=10.0))
    limiter.reserve(None, 6, 0.0)

    alone = limiter.wait(None, 5, 0.0, "b"), limiter.delay(None, 5, 0.0), limiter.wait(None, 4, 0.0, "b")
    limiter.release(None, 6)

    assert alone == (1.0, 1.0, 0.0)
    assert limiter.delay(None, 10, 0.0) == 0.0


def test_a_limit_of_which_something_is_set_aside_is_not_forgotten() -> None:
    keys = iter(range(5000))
    limiter = RateLimiter(RateLimit(calls=1, per=1.0))
    limiter.reserve("kept", 1, 0.0)

    for key in keys:
        limiter.delay(key, 1, key * 10.0)

    assert limiter.wait("kept", 1, 60_000.0, "b") > 0
    limiter.release("kept", 1)
    assert limiter.wait("kept", 1, 60_000.0, "b") == 0.0


def test_what_is_saved_up_is_for_who_waits_for_it() -> None:
    """Until it is there, and a moment longer: who does not come then holds up nobody."""
    limiter = RateLimiter(RateLimit(messages=10, per=10.0))
    limiter.delay(None, 10, 0.0)

    assert limiter.wait(None, 5, 0.0, "large") == 5.0
    assert [limiter.wait(None, 1, now, "small") for now in (1.0, 5.0)] == [5.0, 1.0]
    assert limiter.wait(None, 5, 5.0, "large") == 0.0
    assert limiter.wait(None, 1, 5.0, "small") == 0.0
    assert limiter.wait(None, 10, 5.0, "large") == 5.0
    assert limiter.wait(None, 1, 11.0, "small") == 0.0


def test_a_share_of_a_limit_for_each_worker() -> None:
    assert RateLimit(calls=10, per=2.0).divided(4) == RateLimit(calls=2.5, per=2.0)
    assert RateLimit(messages=10).divided(4) == RateLimit(messages=2.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "RateLimit needs exactly one of calls and messages, got neither"),
        (
            {"calls": 1, "messages": 2},
            "RateLimit needs exactly one of calls and messages, got calls=1 and messages=2",
        ),
        ({"calls": 0}, "RateLimit.calls must be a number above 0, got 0"),
        ({"messages": -1}, "RateLimit.messages must be a number above 0, got -1"),
        ({"calls": "ten"}, "RateLimit.calls must be a number above 0, got 'ten'"),
        ({"calls": True}, "RateLimit.calls must be a number above 0, got True"),
        ({"calls": float("nan")}, "RateLimit.calls must be a number above 0, got nan"),
        ({"calls": float("inf")}, "RateLimit.calls must be a number above 0, got inf"),
        ({"calls": 1, "per": 0}, "RateLimit.per must be a number of seconds above 0, got 0"),
        ({"calls": 1, "key": "org"}, "RateLimit.key must be a function of a message, got 'org'"),
        ({"call": 1}, "RateLimit has no option call; did you mean calls?"),
    ],
)
def test_a_wrong_limit_is_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    """J08: an unknown option names the valid one."""
    with pytest.raises(ConfigError) as caught:
        RateLimit(**options)

    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("limit", "batchings", "told"),
    [
        (None, [], None),
        (RateLimit(messages=200, per=3600.0), [], None),
        (RateLimit(messages=199, per=3600.0), [], "needs 1809 s for the 100 messages"),
        (RateLimit(messages=199, per=3600.0), [Batching(size=10)], "needs 1809 s for the 100 messages"),
        (RateLimit(calls=20, per=3600.0), [Batching(size=10), Batching(size=5)], None),
        (RateLimit(calls=10, per=3600.0), [Batching(size=10)], "set prefetch to 25 or less"),
        (RateLimit(calls=1, per=86400.0), [], "set prefetch to 1 or less"),
    ],
)
def test_a_window_that_waits_longer_than_brokers_allow_is_told(
    limit: RateLimit | None, batchings: list[Batching], told: str | None
) -> None:
    warning = pace_warning(limit, 100, batchings)

    assert (warning is None) if told is None else (told in (warning or ""))
