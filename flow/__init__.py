"""Write one class per delivery target; flow feeds it RabbitMQ messages, each settled exactly once."""

from flow.batch import Batch
from flow.batching import Batching
from flow.claim import Claim
from flow.message import Message
from flow.outcome import Reject, Retry, Skip, Unavailable
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from flow.settings import Secret, Settings

__all__ = [
    "Batch",
    "Batching",
    "Claim",
    "Message",
    "Pipeline",
    "RateLimit",
    "Reject",
    "Retries",
    "Retry",
    "Secret",
    "Settings",
    "Skip",
    "Unavailable",
]
