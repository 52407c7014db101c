"""Whatever the bytes are: a body, a refusal or a skip, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.codec import depth
from flow.errors import DecodeError
from flow.outcome import Skip
from flow.schema import ActionMessage, EventMessage, IdsMessage
from tests.bodies import ALL, IDS, NAMES, changed, codec, decoded, places, refusal, sample
from tests.messages import MemoryOrigin


@pytest.mark.parametrize("types", [ALL, (dict,)])
@pytest.mark.parametrize("filler", ["", "[" * 200, '\\"[{' * 200, "]" * 200], ids=range(4))
def test_depth_is_counted_in_levels_outside_of_texts(types: tuple[Any, ...], filler: str) -> None:
    text = '"' + filler + "x" * 3000 + '"'

    def nested(levels: int) -> str:
        return IDS % f',"schema":"proca:ids:1","a":{text},"b":{"[" * levels}{text}{"]" * levels}'

    assert decoded(nested(99), types).record_id == "7"
    assert refusal(nested(100), types) == "nested deeper than 100 levels"


def test_levels_of_a_small_body_that_nobody_reads_do_not_matter() -> None:
    assert decoded(IDS % f',"unread":{"[" * 200}{"]" * 200}', (IdsMessage,)).record_id == "7"
    assert refusal(IDS % f',"unread":{"[" * 200}{"]" * 200}', (dict,)) == "nested deeper than 100 levels"


def test_many_shallow_levels_are_not_deep() -> None:
    body = changed("action", "notKnownYet", [[{}] * 300, {"a": []}])

    assert decoded(body).record_id == "7"


@settings(deadline=None)
@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_depth_is_what_a_reader_would_count(value: Any) -> None:
    def levels(part: Any) -> int:
        if not isinstance(part, list | dict):
            return 0
        return 1 + max(map(levels, part.values() if isinstance(part, dict) else part), default=0)

    assert depth(json.dumps(value, ensure_ascii=False).encode()) == levels(value)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='[]{}"\\ a', max_size=200).map(str.encode))
def test_any_bytes_have_a_depth(raw: bytes) -> None:
    assert 0 <= depth(raw) <= len(raw)


def test_counting_levels_takes_linear_time() -> None:
    """Escaped quotes without an end once meant a search from each of them to the end."""
    assert depth(b'"' + b'\\"' * 1_000_000) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def outcome_is_allowed(raw: bytes, types: tuple[Any, ...]) -> None:
    message = MemoryOrigin().message(raw)
    try:
        codec(types).decode(message)
    except (DecodeError, Skip):
        assert message.body is None
    else:
        assert isinstance(message.body, types)
        assert message.record_id is None or message.record_id.isdigit()


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([ALL, (IdsMessage,), (ActionMessage, EventMessage), (dict,)]))
def test_any_bytes_are_read_or_refused(raw: bytes, types: tuple[Any, ...]) -> None:
    outcome_is_allowed(raw, types)


@settings(deadline=None)
@given(JSON, st.sampled_from([ALL, (IdsMessage,), (ActionMessage, EventMessage), (dict,)]))
def test_any_json_is_read_or_refused(value: Any, types: tuple[Any, ...]) -> None:
    outcome_is_allowed(json.dumps(value).encode(), types)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_any_value_in_any_place_is_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = json.loads(sample(name))
    place = data.draw(st.sampled_from(sorted(places(whole))))
    replaced = changed(name, place, data.draw(JSON))

    outcome_is_allowed(json.dumps(replaced).encode(), ALL)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_any_cut_or_changed_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = sample(name)
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))

    outcome_is_allowed(raw[:start] + data.draw(st.binary(max_size=9)) + raw[stop:], ALL)
