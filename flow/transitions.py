"""What becomes of an action and its supporter, and what is published of it: one table, and nothing else.

A supporter is `new`, `confirming`, then `accepted` or `rejected`; an action `new`, `confirming`, `accepted`,
then `delivered`, or else `rejected`. What people decide (a link in a mail, a moderator) sets one status, and
`transition` says what follows.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

ActionStatus: TypeAlias = Literal["new", "confirming", "accepted", "rejected", "delivered"]
SupporterStatus: TypeAlias = Literal["new", "confirming", "accepted", "rejected"]
Stage: TypeAlias = Literal["supporter_confirm", "action_confirm", "deliver"]
"""Why a message is published: somebody has to confirm the supporter or the action, or it is delivered."""
Condition: TypeAlias = Literal["always", "supporter must be confirmed", "action must be confirmed", "neither"]

ACTION_STATUSES: tuple[ActionStatus, ...] = get_args(ActionStatus)
SUPPORTER_STATUSES: tuple[SupporterStatus, ...] = get_args(SupporterStatus)


@dataclass(frozen=True, slots=True)
class Demands:
    """What must be confirmed before an action is delivered."""

    supporter: bool = False
    action: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """What an action and its supporter become, and the stage for which a message is published, if any."""

    action: ActionStatus
    supporter: SupporterStatus | None
    emit: Stage | None = None


Pair: TypeAlias = tuple[ActionStatus, SupporterStatus]

CONFIRM_SUPPORTER = Transition("new", "confirming", "supporter_confirm")
CONFIRM_ACTION = Transition("confirming", "accepted", "action_confirm")
DELIVER = Transition("delivered", "accepted", "deliver")
REJECT = Transition("rejected", "rejected")

# The first row that fits counts; a pair without one stays as it is. A lone action waits for a supporter.
TABLE: tuple[tuple[Pair, Condition, Transition], ...] = (
    (("new", "new"), "supporter must be confirmed", CONFIRM_SUPPORTER),
    (("new", "new"), "action must be confirmed", CONFIRM_ACTION),
    (("new", "new"), "neither", DELIVER),
    (("new", "rejected"), "always", REJECT),
    (("confirming", "rejected"), "always", REJECT),
    (("new", "accepted"), "action must be confirmed", CONFIRM_ACTION),
    (("new", "accepted"), "always", DELIVER),
    (("accepted", "accepted"), "always", DELIVER),
)

UNSETTLED: frozenset[Pair] = frozenset(pair for pair, _, _ in TABLE)
"""The pairs that do not stay: whoever finds one in the records has something to do."""


def transition(action: ActionStatus, supporter: SupporterStatus | None, demands: Demands) -> Transition:
    """Return what becomes of *action* and its *supporter* (None: it has none) under *demands*.

    Pure and total; applied again to what it returned, it changes and publishes nothing.
    """
    for pair, condition, becomes in TABLE:
        if pair == (action, supporter) and _holds(condition, demands):
            return becomes
    return Transition(action, supporter)


def _holds(condition: Condition, demands: Demands) -> bool:
    if condition == "supporter must be confirmed":
        return demands.supporter
    if condition == "action must be confirmed":
        return demands.action
    return condition == "always" or not (demands.supporter or demands.action)


def demands(
    organisation: Demands, supporter_confirm: bool | None = None, action_confirm: bool | None = None
) -> Demands:
    """Return what the *organisation* demands, each unless the campaign says otherwise (None: it does not)."""
    return Demands(
        supporter=organisation.supporter if supporter_confirm is None else supporter_confirm,
        action=organisation.action if action_confirm is None else action_confirm,
    )
