"""Hands what is to be moderated to somebody who decides by a link."""

from collections.abc import Callable
from typing import ClassVar

from flow.demo.cast import number_of
from flow.message import Message
from flow.pipeline import Pipeline
from flow.schema import ActionMessage


class Moderator(Pipeline[ActionMessage]):
    """Show each action to the moderator."""

    name = "moderator"
    queue = "sady.moderate"
    shown: ClassVar[Callable[[int, int], None]]
    """Takes the id of the action and the number of the signature."""

    def handle_message(self, message: Message[ActionMessage]) -> ActionMessage:
        body = message.body
        type(self).shown(body.action_id, number_of(body.contact.email or ""))
        return body
