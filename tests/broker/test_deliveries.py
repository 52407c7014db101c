"""Deliveries are the same in whatever pieces their frames come, and nothing out of order is let by."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel

from flow.broker.frames import BrokenStream
from tests.broker.wire import HEARTBEAT, Delivery, Line, cut, frame, raw_frame, short
from tests.examples import examples

SIZES = [0, 1, 2, 7, 8, 9, 52, 255, 256, 4087, 4088, 4089, 8175, 8176, 8177]
names = st.text("abcXYZ019-_.:", max_size=60)  # pamqp refuses other exchanges
deliveries = st.builds(
    Delivery,
    tag=st.integers(1, (1 << 64) - 1),
    body=st.sampled_from(SIZES).map(lambda size: b"x" * size) | st.binary(max_size=300),
    channel=st.sampled_from([1, 2]),
    consumer=st.sampled_from(["one", "two"]),
    exchange=names,
    key=names | st.text(max_size=60),
    redelivered=st.booleans(),
    headers=st.dictionaries(st.text(max_size=5), st.integers(0, 1 << 40) | st.text(max_size=5), max_size=3),
    message_id=st.none() | st.text(max_size=10),
)
others = st.sampled_from(
    [
        HEARTBEAT,
        frame(Basic.QosOk(), 1),
        frame(Basic.ConsumeOk("one"), 2),
        frame(Basic.Cancel("one", True), 2),
        frame(Channel.OpenOk(), 3),
        raw_frame(2, 3, b"header of another channel"),
        raw_frame(3, 3, b"x" * 4088),
    ]
)
offsets = st.lists(st.integers(0, 1 << 20), max_size=30)


def one_of(line: Line) -> Any:
    (message,) = line.inbox.messages
    return message


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[bytes, dict[int, list[Delivery]], bytes]:
    """Streams of two tapped channels and of others, interleaved frame by frame.

    The frames of a delivery stay in their order, with nothing of their own channel between them.
    """
    tags = count(1)
    lanes: dict[int, list[list[bytes]]] = {1: [], 2: [], 3: []}
    expected: dict[int, list[Delivery]] = {1: [], 2: []}
    passed = []
    for one in draw(st.lists(deliveries | others, max_size=15)):
        if isinstance(one, Delivery):
            one.tag = next(tags)
            lanes[one.channel] += [[part] for part in one.frames()]
            expected[one.channel].append(one)
        else:
            channel = int.from_bytes(one[1:3], "big")
            lanes[channel if channel in (1, 2) else 3].append([one])
    order = draw(st.permutations([lane for lane, parts in lanes.items() for _ in parts]))
    wire = []
    for lane in order:
        part = lanes[lane].pop(0)[0]
        wire.append(part)
        if lane == 3 or (part[0] == 1 and part[7:11] != b"\0\x3c\0\x3c"):
            passed.append(part)
    return b"".join(wire), expected, b"".join(passed)


@settings(max_examples=examples(300), deadline=None)
@given(interleaved(), offsets)
def test_any_mix_in_any_pieces_gives_the_same_messages_and_the_same_rest(
    mix: tuple[bytes, dict[int, list[Delivery]], bytes], at: list[int]
) -> None:
    wire, expected, passed = mix
    line = Line((1, 2))

    line.feed(*cut(wire, at))

    for channel in (1, 2):
        settler = line.settlers[channel]
        messages = [one for one in line.inbox.messages if one.tag in settler.outstanding]
        assert list(settler.outstanding.values()) == messages
        assert [one for one in line.messages if one[1] in settler.outstanding] == [
            one.expected() for one in expected[channel]
        ]
        assert sum(one.outstanding for one in settler.consumers.values()) == len(messages)
        assert not line.deliveries[channel].unfinished
    assert b"".join(line.passed) == passed


@settings(max_examples=examples(30), deadline=None)
@given(interleaved())
def test_single_bytes_give_the_same_messages_and_the_same_rest(
    mix: tuple[bytes, dict[int, list[Delivery]], bytes],
) -> None:
    wire, expected, passed = mix
    line = Line((1, 2))

    line.feed(*(wire[at : at + 1] for at in range(len(wire))))

    assert sorted(line.messages) == sorted(one.expected() for ones in expected.values() for one in ones)
    assert b"".join(line.passed) == passed


def recorded() -> tuple[list[Delivery], bytes]:
    """Deliveries of bodies around one and two frames, with heartbeats and a method between."""
    ones = [
        Delivery(tag, b"%d" % tag * size, headers={"x": tag} if tag % 2 else {}, redelivered=tag % 3 == 0)
        for tag, size in enumerate([0, 1, 0, 9, 60, 4087, 4088, 4089, 0, 2], 1)
    ]
    wire = b"".join(one.wire() + (HEARTBEAT if one.tag % 4 == 0 else b"") for one in ones)
    return ones, wire + frame(Basic.CancelOk("one"), 1)


def test_a_stream_may_be_cut_in_two_anywhere() -> None:
    ones, wire = recorded()
    expected = [one.expected() for one in ones]
    rest = HEARTBEAT * 2 + frame(Basic.CancelOk("one"), 1)

    for at in range(len(wire)):
        line = Line()
        line.feed(wire[:at], wire[at:])
        assert line.messages == expected, at
        assert b"".join(line.passed) == rest, at


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 13, 64, 1000, 4095, 4096, 4097])
def test_a_stream_may_come_in_pieces_of_any_size(size: int) -> None:
    ones, wire = recorded()
    line = Line()

    line.feed(*(wire[at : at + size] for at in range(0, len(wire), size)))

    assert line.messages == [one.expected() for one in ones]


def test_a_stream_that_ends_anywhere_gives_whole_deliveries_only() -> None:
    """F21: no part of a message is ever handed on."""
    ones, wire = recorded()
    expected = [one.expected() for one in ones]

    for at in range(0, len(wire), 7):
        line = Line()
        line.feed(wire[:at])
        assert line.messages == expected[: len(line.messages)], at


def test_a_body_may_come_in_one_frame_of_any_size_when_the_broker_sets_no_limit() -> None:
    line = Line(limit=1 << 29, max_body=1 << 24)
    one = Delivery(1, b"x" * 10_000_000)
    wire = one.wire(frame_max=0)

    line.feed(*(wire[at : at + 1400] for at in range(0, len(wire), 1400)))

    assert line.messages == [one.expected()]


def test_a_body_may_come_in_frames_smaller_than_agreed_and_empty_ones() -> None:
    line = Line()
    one = Delivery(1, b"abcdef")
    method, header, _ = one.frames()

    line.feed(method + header + b"".join(raw_frame(3, 1, part) for part in (b"", b"ab", b"", b"c", b"def")))

    assert line.messages == [one.expected()]


def test_the_time_of_a_message_is_the_time_of_its_last_byte() -> None:
    line = Line()
    wire = Delivery(1).wire() + Delivery(2).wire()

    line.inbox.now = 5.0
    line.feed(wire[:-1])
    line.inbox.now = 6.0
    line.feed(wire[-1:])

    assert [message.received_at for message in line.inbox.messages] == [5.0, 6.0]


def test_names_that_are_no_utf8_are_delivered() -> None:
    """F32: a routing key in another encoding is no reason to stop."""
    line = Line()
    content = b"\0\x3c\0\x3c" + short("one") + bytes(7) + b"\x01" + b"\0" + b"\x03\xe4\xf6\xfc" + b"\x02k\xff"
    _, header, body = Delivery(1).frames()

    line.feed(raw_frame(1, 1, content) + header + body)

    assert one_of(line).exchange == "\udce4\udcf6\udcfc"
    assert one_of(line).routing_key == "k\udcff"


# Bodies that are too large


@pytest.mark.parametrize("size", [100, 101, 4088, 4089, 10_000])
@pytest.mark.parametrize("piece", [7, 100_000])
def test_a_body_above_the_limit_is_counted_off_and_handed_on_empty(size: int, piece: int) -> None:
    line = Line(max_body=100)
    large, small = Delivery(1, b"x" * size), Delivery(2, b"ok")
    wire = large.wire() + small.wire()

    line.feed(*(wire[at : at + piece] for at in range(0, len(wire), piece)))

    first, second = line.inbox.messages
    assert first.raw == (b"" if size > 100 else large.body)
    assert first.size == size
    assert (second.tag, second.raw) == (2, b"ok")
    assert list(line.settlers[1].outstanding) == [1, 2]


def test_of_a_body_above_the_limit_nothing_is_kept() -> None:
    line = Line(max_body=10_000)
    method, header, *bodies = Delivery(1, b"x" * 1_000_000).frames()

    line.feed(method, header, *bodies[:-1])

    assert line.deliveries[1]._parts == []
    assert line.deliveries[1].unfinished


# What is in no legal order: the text, and frames that lead to it

METHOD, HEADER, BODY = Delivery(1, b"abc").frames()
DELIVER = b"\0\x3c\0\x3c"
ARGUMENTS = bytes(7) + b"\x01\0"
BROKEN = {
    "a header outside a delivery": ("type 2 where a method frame was due", [HEADER]),
    "a body outside a delivery": ("type 3 where a method frame was due", [BODY]),
    "a body after all of it": ("type 3 where a method frame was due", [METHOD, HEADER, BODY, BODY]),
    "an empty body after an empty one": (
        "type 3 where a method frame was due",
        [*Delivery(1, b"").frames(), raw_frame(3, 1, b"")],
    ),
    "a body before the header": ("type 3 where a content header frame was due", [METHOD, BODY]),
    "a second header": ("type 2 where a body frame was due", [METHOD, HEADER, HEADER]),
    "a delivery instead of the header": ("type 1 where a content header frame was due", [METHOD, METHOD]),
    "a delivery instead of the body": ("type 1 where a body frame was due", [METHOD, HEADER, METHOD]),
    "another method within": ("type 1 where a body frame was due", [METHOD, HEADER, frame(Basic.QosOk(), 1)]),
    "a heartbeat of the channel": ("type 8 where a method frame was due", [raw_frame(8, 1, b"")]),
    "a body longer than announced": (
        "a body that is longer than its header says",
        [METHOD, HEADER, raw_frame(3, 1, b"abcd")],
    ),
    "the last body longer than announced": (
        "a body that is longer than its header says",
        [METHOD, HEADER, raw_frame(3, 1, b"ab"), raw_frame(3, 1, b"cd")],
    ),
    "a header without flags": ("a content header of 13 bytes", [METHOD, raw_frame(2, 1, HEADER[7:20]), BODY]),
    "a method without number": ("a method frame of 3 bytes", [raw_frame(1, 1, DELIVER[:3])]),
    "an unknown consumer": ("for a consumer that does not exist", Delivery(1, consumer="three").frames()),
    "no arguments": ("arguments do not fill their frame", [raw_frame(1, 1, DELIVER), HEADER, BODY]),
    "a tag alone": ("arguments do not fill their frame", [raw_frame(1, 1, DELIVER + short("one"))]),
    "no key": (
        "arguments do not fill their frame",
        [raw_frame(1, 1, DELIVER + short("one") + ARGUMENTS + short("x")), HEADER, BODY],
    ),
    "a key cut short": (
        "arguments do not fill their frame",
        [raw_frame(1, 1, DELIVER + short("one") + ARGUMENTS + short("x") + b"\x09key"), HEADER, BODY],
    ),
    "more than the key": (
        "arguments do not fill their frame",
        [raw_frame(1, 1, DELIVER + short("one") + ARGUMENTS + short("x") + short("y") + b"z"), HEADER, BODY],
    ),
    "a body frame larger than agreed": (
        "a frame of 4089 bytes; at most 4088 were agreed",
        Delivery(1, b"x" * 4089).frames(0),
    ),
    "a header frame larger than agreed": (
        "a frame of 5[0-9]{3} bytes; at most 4088 were agreed",
        Delivery(1, b"x", headers={"h": "x" * 5000}).frames(),
    ),
    "a method without its end mark": (
        "does not end with the end mark",
        [METHOD[:-1] + b"\0", HEADER, BODY],
    ),
    "a header without its end mark": (
        "does not end with the end mark",
        [METHOD, HEADER[:-1] + b"\0", BODY],
    ),
    "a body without its end mark": ("does not end with the end mark", [METHOD, HEADER, BODY[:-1] + b"\0"]),
}


@pytest.mark.parametrize("after", [b"", Delivery(9).wire() * 3], ids=["last", "more"])
@pytest.mark.parametrize("piece", [1, 10, 1 << 20])
@pytest.mark.parametrize(("text", "frames"), BROKEN.values(), ids=list(BROKEN))
def test_what_is_in_no_legal_order_is_refused(
    text: str, frames: list[bytes], piece: int, after: bytes
) -> None:
    line = Line()
    sound = Delivery(1, b"sound")
    wire = sound.wire() + b"".join(frames) + after

    with pytest.raises(BrokenStream, match=text):
        line.feed(*(wire[at : at + piece] for at in range(0, len(wire), piece)))

    assert line.messages[0] == sound.expected()
    assert all(one[0:2] == ("one", 1) for one in line.messages)


def test_content_of_one_channel_does_not_follow_the_method_of_another() -> None:
    line = Line((1, 2))
    other = frame(Basic.Deliver("one", 2, False, "", "key"), 2)

    with pytest.raises(BrokenStream, match="type 2 where a method frame was due"):
        line.feed(Delivery(1).wire() + other + HEADER + BODY)

    assert len(line.messages) == 1


@settings(max_examples=examples(500), deadline=None)
@given(st.data())
def test_corrupted_bytes_give_the_same_result_in_whatever_pieces(data: st.DataObject) -> None:
    wire = bytearray(b"".join(Delivery(tag, b"body %d" % tag).wire() for tag in (1, 2, 3)) + HEARTBEAT)
    for _ in range(data.draw(st.integers(1, 2))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    results = []

    for pieces in ([bytes(wire)], cut(bytes(wire), data.draw(offsets)), cut(bytes(wire), list(range(999)))):
        line = Line()
        try:
            line.feed(*pieces)
            error = ""
        except BrokenStream as broken:
            error = str(broken)
        results.append((error, line.messages, b"".join(line.passed)))

    assert results[0] == results[1] == results[2]


# The end of a channel


@pytest.mark.parametrize(
    "closing",
    [frame(Channel.Close(406, "no", 0, 0), 1), frame(Channel.CloseOk(), 1)],
    ids=["close", "close-ok"],
)
def test_a_closed_channel_is_dead_from_that_frame_on(closing: bytes) -> None:
    line = Line((1, 2))
    line.feed(Delivery(1).wire())
    line.inbox.messages.clear()  # taken over
    survivor = Delivery(1, channel=2)

    line.feed(Delivery(2).wire() + survivor.wire() + Delivery(3).wire() + closing + Delivery(4).wire())

    settler = line.settlers[1]
    assert not settler.alive
    assert not any(consumer.alive for consumer in settler.consumers.values())
    assert list(settler.outstanding) == [1]
    assert settler.consumers[b"one"].outstanding == 1
    assert settler.dropped == 3
    assert line.messages == [survivor.expected()]
    assert line.settlers[2].alive
    assert line.passed == [closing]


def test_the_end_of_a_delivery_that_was_under_way_is_dropped() -> None:
    line = Line()
    method, header, body = Delivery(1).frames()

    line.feed(method, header)
    line.settlers[1].end()
    line.feed(body, Delivery(2, b"").wire())

    assert line.messages == []
    assert line.settlers[1].dropped == 2
    assert line.settlers[1].outstanding == {}
