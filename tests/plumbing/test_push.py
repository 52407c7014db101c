from collections.abc import AsyncIterator, Callable, Iterable

import anyio
import pytest

from flow.errors import BrokerError, ConnectionLost, DecodeError, PublishFailed, PublishTimedOut, Unanswered
from flow.plumbing.push import HOPELESS, WINDOW, Push, Unconfirmed, check_document, check_line, check_nothing

pytestmark = pytest.mark.anyio


class Broker:
    """Confirms what is not in *errors*; with a gate, only once that is open."""

    def __init__(
        self, errors: dict[bytes, BrokerError] | None = None, gate: anyio.Event | None = None
    ) -> None:
        self.errors = errors or {}
        self.gate = gate
        self.confirmed: list[bytes] = []
        self.under_way = 0
        self.most_under_way = 0

    async def publish(self, body: bytes) -> None:
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await (self.gate.wait() if self.gate else anyio.lowlevel.checkpoint())
        finally:
            self.under_way -= 1
        if body in self.errors:
            raise self.errors[body]
        self.confirmed.append(body)


async def stream(bodies: Iterable[bytes]) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(1, count + 1)]


async def pushed(
    broker: Broker, bodies: Iterable[bytes], check: Callable[[bytes], bool] = check_nothing
) -> tuple[Push[bytes], list[Unconfirmed[bytes]]]:
    failures: list[Unconfirmed[bytes]] = []
    push = Push(broker.publish, check, failures.append)
    with anyio.fail_after(30):
        await push.run(stream(bodies))
    return push, failures


async def test_every_body_is_published_and_counted() -> None:
    broker = Broker()

    push, failures = await pushed(broker, numbered(500))

    assert sorted(broker.confirmed) == sorted(numbered(500))
    assert (push.pushed, push.confirmed, push.failed) == (500, 500, 0)
    assert failures == push.unconfirmed() == []


async def test_no_more_than_the_window_is_under_way() -> None:
    broker = Broker()

    await pushed(broker, numbered(5 * WINDOW))

    assert broker.most_under_way == WINDOW


async def test_a_refused_body_is_told_with_its_place_and_the_others_go_on() -> None:
    error = PublishFailed("refused")
    broker = Broker({b"2": error})

    push, failures = await pushed(broker, numbered(4))

    assert failures == [Unconfirmed(2, b"2", error)]
    assert (push.pushed, push.confirmed, push.failed) == (4, 3, 1)
    assert not push.stopped


async def test_a_lost_broker_ends_it_and_everything_unconfirmed_is_known() -> None:
    gate = anyio.Event()
    broker = Broker({b"1": ConnectionLost("gone"), b"3": ConnectionLost("gone too")}, gate)
    failures: list[Unconfirmed[bytes]] = []
    push = Push(broker.publish, check_nothing, failures.append)
    bodies = stream(numbered(10 * WINDOW))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(push.run, bodies)
            await anyio.wait_all_tasks_blocked()
            gate.set()

    assert str(push.fault) == "gone"
    assert push.stopped
    left = {one.message for one in push.unconfirmed()}
    assert left | set(broker.confirmed) == {body for body in numbered(10 * WINDOW) if int(body) <= push.read}
    assert {b"1", b"3"} <= left
    assert not left & set(broker.confirmed)
    assert push.read <= WINDOW + 1


async def test_what_is_under_way_is_waited_for_when_it_is_stopped() -> None:
    gate = anyio.Event()
    broker = Broker(gate=gate)
    push = Push(broker.publish, check_nothing, lambda _: None)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(push.run, stream(numbered(10 * WINDOW)))
            await anyio.wait_all_tasks_blocked()
            push.stop()
            gate.set()

    assert len(broker.confirmed) == push.confirmed == WINDOW
    assert [one.number for one in push.unconfirmed()] == [WINDOW + 1]
    assert not push.unconfirmed()[0].may_have_arrived


async def test_a_hundred_refusals_in_a_row_end_it() -> None:
    bodies = numbered(10 * HOPELESS)
    broker = Broker({body: PublishFailed("no queue is bound") for body in bodies})

    push, failures = await pushed(broker, bodies)

    assert str(push.fault) == "100 failed in a row, so that the rest was not tried"
    assert HOPELESS <= len(failures) <= HOPELESS + WINDOW


async def test_scattered_refusals_do_not_end_it() -> None:
    bodies = numbered(4 * HOPELESS)
    broker = Broker({body: PublishFailed("full") for body in bodies[::2]})

    push, failures = await pushed(broker, bodies)

    assert push.fault is None
    assert len(failures) == 2 * HOPELESS


async def test_lines_that_are_no_json_are_told_and_not_published() -> None:
    broker = Broker()

    push, failures = await pushed(broker, [b'{"a": 1}', b'{"secret": ', b"2"], check_line)

    assert sorted(broker.confirmed) == [b"2", b'{"a": 1}']
    assert [(one.number, one.message) for one in failures] == [(2, b'{"secret": ')]
    assert "secret" not in str(failures[0].error)
    assert (push.pushed, push.failed) == (2, 1)


async def test_blank_lines_are_left_out_and_still_counted_as_lines() -> None:
    push, failures = await pushed(Broker(), [b"1", b"", b" \t\r", b"nonsense"], check_line)

    assert (push.pushed, push.confirmed) == (1, 1)
    assert [one.number for one in failures] == [4]
    assert push.unconfirmed() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a": 1} x',
        b"nul",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"[NaN]",
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
    ],
    ids=repr,
)
def test_a_document_that_is_no_json_is_refused_without_being_quoted(body: bytes) -> None:
    sentence = (
        "it is not one JSON document in UTF-8: --lines pushes each line of it, --raw all of it as it is"
    )
    with pytest.raises(DecodeError, match=f"^{sentence}$"):
        check_document(body)


@pytest.mark.parametrize("body", [b"{}", b" [1] \n", '"ä"'.encode(), b"null", b"1e3"])
def test_a_json_document_is_taken(body: bytes) -> None:
    assert check_document(body)


class Breaking(Broker):
    """Confirms some, then loses its connection under one; after that nothing can be sent a few times."""

    def __init__(self, confirms: int, refusals: int) -> None:
        super().__init__()
        self.confirms = confirms
        self.refusals = refusals
        self.lost: list[bytes] = []
        self.seen: list[bytes] = []

    async def publish(self, body: bytes) -> None:
        if self.lost and self.refusals:
            self.refusals -= 1
            raise ConnectionLost("Nothing listens")
        self.seen.append(body)
        if len(self.seen) == self.confirms + 1:
            self.lost.append(body)
            raise Unanswered("broke")
        self.confirmed.append(body)


async def test_a_broken_connection_loses_nothing_and_doubles_nothing() -> None:
    """What was under way is told, once; what was not sent is sent over the next connection."""
    broker = Breaking(confirms=50, refusals=20)
    failures: list[Unconfirmed[bytes]] = []
    push = Push(broker.publish, check_nothing, failures.append, patience=30.0)

    with anyio.fail_after(30):
        await push.run(stream(numbered(2000)))

    assert push.fault is None
    assert [one.message for one in failures] == broker.lost
    assert failures[0].may_have_arrived
    assert push.unanswered == 1
    assert sorted(broker.seen) == sorted(numbered(2000))
    assert push.confirmed == 1999


async def test_patience_ends() -> None:
    broker = Breaking(confirms=50, refusals=10**9)
    failures: list[Unconfirmed[bytes]] = []
    push = Push(broker.publish, check_nothing, failures.append, patience=0.3)

    with anyio.fail_after(30):
        await push.run(stream(numbered(2000)))

    assert str(push.fault) == "Nothing listens"
    told = [one.message for one in failures] + [one.message for one in push.unconfirmed()]
    assert not any(one.may_have_arrived for one in push.unconfirmed())
    assert sorted([*told, *broker.confirmed]) == sorted(numbered(push.read))


async def test_a_broker_that_was_never_reached_is_not_waited_for() -> None:
    broker = Broker({body: ConnectionLost("Nothing listens") for body in numbered(10)})
    push = Push(broker.publish, check_nothing, lambda _: None, patience=3600.0)

    with anyio.fail_after(30):
        await push.run(stream(numbered(10)))

    assert str(push.fault) == "Nothing listens"


async def test_what_was_not_confirmed_in_time_may_have_arrived() -> None:
    push, failures = await pushed(
        Broker({b"1": PublishTimedOut("late"), b"2": PublishFailed("full")}), numbered(3)
    )

    assert [(one.message, one.may_have_arrived) for one in failures] == [(b"1", True), (b"2", False)]
    assert (push.failed, push.unanswered) == (2, 1)
