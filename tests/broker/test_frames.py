"""Frames are cut from the first byte on, whatever the pieces in which they come."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Connection

from flow.broker.frames import BrokenStream, FrameCutter
from tests.broker.wire import HEARTBEAT, cut, frame, raw_frame

FRAMES = [
    HEARTBEAT,
    frame(Connection.OpenOk(), 0),
    frame(Channel.OpenOk(), 1),
    frame(Basic.QosOk(), 7),
    raw_frame(3, 2, b""),
    raw_frame(3, 2, b"x"),
    raw_frame(3, 65535, bytes(range(256)) * 15),
]
streams = st.lists(st.sampled_from(FRAMES), max_size=12).map(b"".join)
offsets = st.lists(st.integers(0, 1 << 16), max_size=20)


class Route:
    """Takes the frames of one channel and keeps their contents."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes]] = []

    def __call__(self, data: bytes, kind: int, start: int, end: int) -> int:
        self.taken.append((kind, data[start:end]))
        return end + 1


def fed(data: bytes, at: list[int]) -> bytes:
    passed: list[bytes] = []
    cutter = FrameCutter(passed.append)
    for chunk in cut(data, at):
        cutter.feed(chunk)
    return b"".join(passed)


@given(streams, offsets)
def test_frames_that_nobody_takes_pass_byte_by_byte(data: bytes, at: list[int]) -> None:
    assert fed(data, at) == data


@given(streams)
def test_single_bytes_are_cut_as_well_as_large_pieces(data: bytes) -> None:
    assert fed(data, list(range(len(data)))) == data


@given(streams, offsets)
def test_only_whole_frames_pass(data: bytes, at: list[int]) -> None:
    passed: list[bytes] = []
    cutter = FrameCutter(passed.append)

    for chunk in cut(data, at):
        cutter.feed(chunk)
        alone: list[bytes] = []
        again = FrameCutter(alone.append)
        again.feed(b"".join(passed))
        assert alone == ([b"".join(passed)] if passed else [])
        assert not again.unfinished


@given(st.lists(st.sampled_from(FRAMES), max_size=12), offsets)
def test_a_route_takes_its_channel_and_no_other(frames: list[bytes], at: list[int]) -> None:
    passed: list[bytes] = []
    route = Route()
    cutter = FrameCutter(passed.append)
    cutter.routes[2] = route

    for chunk in cut(b"".join(frames), at):
        cutter.feed(chunk)

    assert route.taken == [(3, one[7:-1]) for one in frames if one[1:3] == b"\0\2"]
    assert b"".join(passed) == b"".join(one for one in frames if one[1:3] != b"\0\2")


def test_frames_between_two_taken_ones_pass_together() -> None:
    passed: list[bytes] = []
    cutter = FrameCutter(passed.append)
    cutter.routes[2] = Route()
    taken, other = raw_frame(3, 2, b"x"), frame(Channel.OpenOk(), 1)

    cutter.feed(other + HEARTBEAT + taken + taken + HEARTBEAT)

    assert passed == [other + HEARTBEAT, HEARTBEAT]


def test_a_route_that_takes_nothing_has_looked_before_the_frame_passes() -> None:
    order: list[str] = []
    cutter = FrameCutter(lambda frames: order.append("passed"))

    def look(data: bytes, kind: int, start: int, end: int) -> int:
        order.append("looked")
        return 0

    cutter.routes[0] = look

    cutter.feed(HEARTBEAT)

    assert order == ["looked", "passed"]


@pytest.mark.parametrize("at", range(9))
def test_the_answer_to_another_protocol_version_passes(at: int) -> None:
    answer = b"AMQP\x00\x00\x09\x01"

    assert fed(answer, [at]) == answer


@pytest.mark.parametrize("at", [[], [len(HEARTBEAT)]])
def test_such_an_answer_after_the_first_frame_is_refused(at: list[int]) -> None:
    with pytest.raises(BrokenStream, match="unknown type 65"):
        fed(HEARTBEAT + b"AMQP\x00\x00\x09\x01", at)


@pytest.mark.parametrize("kind", [0, 4, 5, 6, 7, 9, 21, 72, 206, 255])
def test_unknown_frame_types_are_refused_at_their_first_eight_bytes(kind: int) -> None:
    with pytest.raises(BrokenStream, match=f"unknown type {kind}: this may be no AMQP port"):
        fed(raw_frame(kind, 0, b"x" * 100)[:8], [])


def test_a_web_server_on_the_port_is_noticed_at_once() -> None:
    with pytest.raises(BrokenStream, match="unknown type 72: this may be no AMQP port"):
        fed(b"HTTP/1.1 400 Bad Request\r\n\r\n", [])


@pytest.mark.parametrize("whole", [True, False])
def test_frames_above_the_limit_are_refused_without_waiting_for_them(whole: bool) -> None:
    cutter = FrameCutter(lambda frames: None)
    cutter.limit = 4088
    cutter.feed(raw_frame(3, 1, b"x" * 4088))

    with pytest.raises(BrokenStream, match="a frame of 4089 bytes; at most 4088 were agreed"):
        cutter.feed(raw_frame(3, 1, b"x" * 4089)[: None if whole else 8])


@pytest.mark.parametrize("at", [[], [3], [8], list(range(40))])
def test_frames_without_the_end_mark_are_refused(at: list[int]) -> None:
    with pytest.raises(BrokenStream, match="a frame of 3 bytes that does not end with the end mark"):
        fed(HEARTBEAT + raw_frame(3, 1, b"abc", end=b"\xcd") + HEARTBEAT, at)


def test_what_came_before_a_broken_frame_has_passed() -> None:
    passed: list[bytes] = []
    cutter = FrameCutter(passed.append)

    with pytest.raises(BrokenStream):
        cutter.feed(HEARTBEAT + HEARTBEAT + raw_frame(9, 0, b""))

    assert passed == [HEARTBEAT + HEARTBEAT]


def test_what_came_before_a_frame_that_its_route_refuses_has_passed() -> None:
    passed: list[bytes] = []
    cutter = FrameCutter(passed.append)

    def refuse(data: bytes, kind: int, start: int, end: int) -> int:
        raise BrokenStream("refused")

    cutter.routes[1] = refuse

    with pytest.raises(BrokenStream, match="refused"):
        cutter.feed(HEARTBEAT + raw_frame(3, 1, b""))

    assert passed == [HEARTBEAT]


def test_a_begun_frame_shows_as_unfinished() -> None:
    cutter = FrameCutter(lambda frames: None)

    states = []
    for byte in HEARTBEAT:
        cutter.feed(bytes([byte]))
        states.append(cutter.unfinished)

    assert states == [True] * 7 + [False]


def test_the_time_for_a_large_frame_grows_with_its_size_only() -> None:
    body = b"x" * 30_000_000
    data = raw_frame(3, 1, body)
    passed: list[int] = []
    cutter = FrameCutter(lambda frames: passed.append(len(frames)))
    cutter.limit = len(body)

    start = time.process_time()
    for at in range(0, len(data), 1400):
        cutter.feed(data[at : at + 1400])
    seconds = time.process_time() - start

    assert passed == [len(data)]
    assert seconds < 5  # 0.05 s here; joining at each of the 21,000 pieces takes a minute
