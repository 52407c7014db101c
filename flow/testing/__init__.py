"""Testing pipelines.

Without a broker: messages go in, what became of each comes out, and time jumps. Or on a broker in memory.
"""

from flow.batch import Trigger
from flow.outcome import Outcome
from flow.testing.bodies import action, event, ids
from flow.testing.messages import message
from flow.testing.result import InBatch, Result
from flow.testing.run import run_messages
from flow.testing.running import running, until

__all__ = [
    "InBatch",
    "Outcome",
    "Result",
    "Trigger",
    "action",
    "event",
    "ids",
    "message",
    "run_messages",
    "running",
    "until",
]
