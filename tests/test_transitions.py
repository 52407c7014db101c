"""The table of what becomes of an action and its supporter, row by row, in words of its own."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.transitions import (
    ACTION_STATUSES,
    SUPPORTER_STATUSES,
    UNSETTLED,
    ActionStatus,
    Demands,
    SupporterStatus,
    Transition,
    demands,
    transition,
)

# action | supporter | must the supporter be confirmed? | the action? | becomes: action | supporter | emitted
# "*" is any; what is not listed stays as it is, and nothing is published.
TABLE = """
    new        | none       | * | * | new        | none       | nothing
    new        | new        | y | * | new        | confirming | supporter_confirm
    new        | new        | n | y | confirming | accepted   | action_confirm
    new        | new        | n | n | delivered  | accepted   | deliver
    new        | confirming | * | * | new        | confirming | nothing
    new        | rejected   | * | * | rejected   | rejected   | nothing
    rejected   | rejected   | * | * | rejected   | rejected   | nothing
    new        | accepted   | * | y | confirming | accepted   | action_confirm
    new        | accepted   | * | n | delivered  | accepted   | deliver
    accepted   | accepted   | * | * | delivered  | accepted   | deliver
    confirming | accepted   | * | * | confirming | accepted   | nothing
    rejected   | accepted   | * | * | rejected   | accepted   | nothing
    confirming | rejected   | * | * | rejected   | rejected   | nothing
    delivered  | none       | * | * | delivered  | none       | nothing
    delivered  | new        | * | * | delivered  | new        | nothing
    delivered  | confirming | * | * | delivered  | confirming | nothing
    delivered  | accepted   | * | * | delivered  | accepted   | nothing
    delivered  | rejected   | * | * | delivered  | rejected   | nothing
"""
ROWS = [tuple(cell.strip() for cell in row.split("|")) for row in TABLE.strip().splitlines()]
ANSWERS = {"y": [True], "n": [False], "*": [True, False]}
STATES = list(product(ACTION_STATUSES, (*SUPPORTER_STATUSES, None)))
EVERYTHING = st.tuples(
    st.sampled_from(ACTION_STATUSES),
    st.sampled_from((*SUPPORTER_STATUSES, None)),
    st.booleans(),
    st.booleans(),
)


def told(transition: Transition) -> tuple[str, str, str]:
    return (transition.action, transition.supporter or "none", transition.emit or "nothing")


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_each_row_is_as_the_table_says(row: tuple[str, ...]) -> None:
    action, supporter, by_supporter, by_action, *becomes = row

    for first, second in product(ANSWERS[by_supporter], ANSWERS[by_action]):
        found = transition(action, None if supporter == "none" else supporter, Demands(first, second))  # type: ignore[arg-type]
        assert told(found) == tuple(becomes)


@pytest.mark.parametrize(("action", "supporter"), STATES)
def test_every_other_pair_stays_and_publishes_nothing(
    action: ActionStatus, supporter: SupporterStatus | None
) -> None:
    if (action, supporter or "none") in {row[:2] for row in ROWS}:
        return

    for first, second in product([True, False], repeat=2):
        assert transition(action, supporter, Demands(first, second)) == Transition(action, supporter)


@given(EVERYTHING)
def test_applied_again_it_changes_and_publishes_nothing(
    state: tuple[ActionStatus, SupporterStatus | None, bool, bool],
) -> None:
    action, supporter, *confirmed = state
    first = transition(action, supporter, Demands(*confirmed))

    again = transition(first.action, first.supporter, Demands(*confirmed))

    assert again == Transition(first.action, first.supporter, None)


@given(EVERYTHING, st.booleans(), st.booleans())
def test_settings_that_change_never_publish_a_second_time(
    state: tuple[ActionStatus, SupporterStatus | None, bool, bool], by_supporter: bool, by_action: bool
) -> None:
    action, supporter, *confirmed = state
    first = transition(action, supporter, Demands(*confirmed))

    later = transition(first.action, first.supporter, Demands(by_supporter, by_action))

    assert later.emit is None


@given(EVERYTHING)
def test_unsettled_pairs_are_those_that_change(
    state: tuple[ActionStatus, SupporterStatus | None, bool, bool],
) -> None:
    action, supporter, *confirmed = state

    found = transition(action, supporter, Demands(*confirmed))

    assert (found != Transition(action, supporter)) == ((action, supporter) in UNSETTLED)


@pytest.mark.parametrize("organisation", [True, False])
def test_a_campaign_overrides_each_setting_or_leaves_it(organisation: bool) -> None:
    own = Demands(organisation, organisation)

    assert demands(own) == own
    for said in (True, False):
        assert demands(own, supporter_confirm=said) == Demands(said, organisation)
        assert demands(own, action_confirm=said) == Demands(organisation, said)
