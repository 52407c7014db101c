"""What becomes of a message that was not delivered; pure."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from sysconfig import get_path
from types import MappingProxyType, TracebackType

from flow.codec import TooLarge
from flow.errors import ConfigError, DecodeError, FlowError, WrongMark
from flow.options import option, whole
from flow.outcome import Decision, Outcome, Retry, Skip, Unavailable, Verdict

STANDARD_LIBRARY = get_path("stdlib")
ISOLATED = 2  # the last attempts are made alone, so that one bad message does not park its neighbours


@option
class Retries:
    """How often a message is tried before it is parked."""

    attempts: int = 10
    """Attempts in all, the first one included."""
    per: Mapping[type[Exception], int] = field(default_factory=lambda: MappingProxyType({}))
    """Other numbers of attempts for some classes of exceptions; the most special class wins."""

    def __post_init__(self) -> None:
        whole("Retries.attempts", self.attempts)
        if not isinstance(self.per, Mapping):
            raise ConfigError(f"Retries.per must map exception classes to attempts, got {self.per!r}")
        for kind, attempts in self.per.items():
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise ConfigError(f"Retries.per must have exception classes as keys, got {kind!r}")
            whole(f"Retries.per[{kind.__name__}]", attempts)

    def allowed(self, error: BaseException) -> int:
        """Return how many attempts a message has that failed with *error*."""
        for kind in type(error).__mro__:
            if kind in self.per:
                return self.per[kind]
        return self.attempts

    def isolated(self, attempt: int) -> bool:
        """Tell whether *attempt* is one of the last two, which are delivered in a batch of one."""
        return attempt > 1 and attempt > self.attempts - ISOLATED


def judge(error: BaseException, attempt: int, retries: Retries) -> Decision:
    """Decide what becomes of a message whose *attempt* (from 1) ended with *error*."""
    if isinstance(error, Skip):
        return Decision(Outcome.SKIPPED, error.reason)
    reason = describe(error)
    if isinstance(error, TooLarge):
        # It is not here to be parked: it stays in the loop, unharmed.
        return Decision(Outcome.RETRYING, reason)
    if isinstance(error, DecodeError) or (
        isinstance(error, Verdict) and not isinstance(error, Retry | Unavailable)
    ):
        return Decision(Outcome.PARKED, reason)
    allowed = retries.allowed(error)
    if attempt >= allowed:
        return Decision(Outcome.PARKED, f"gave up after {attempt} attempts: {reason}")
    return Decision(
        Outcome.RETRYING, reason, getattr(error, "after", None) if isinstance(error, Verdict) else None
    )


def describe(error: BaseException) -> str:
    """Say what went wrong without quoting what the error quotes.

    The text of a verdict and of flow's own errors is ours; that of any other exception may hold personal
    data (drivers quote rows and addresses), so only its class and place are named.
    """
    if isinstance(error, Verdict):
        return error.reason
    if isinstance(error, WrongMark):
        where = place(error.__traceback__)
        return f"{error},{where}" if where else str(error)
    if isinstance(error, FlowError):
        return str(error)
    return f"{type(error).__name__}{place(error.__traceback__)}"


def place(traceback: TracebackType | None) -> str:
    """Return " in function (file:line)" of the innermost frame of the user's own code, or ""."""
    found = ""
    while traceback is not None:
        frame = traceback.tb_frame
        path = Path(frame.f_code.co_filename)
        module = frame.f_globals.get("__name__", "")
        ours = module.startswith("flow.") and not module.startswith("flow.pipelines.")
        if not ours and "site-packages" not in path.parts and not path.is_relative_to(STANDARD_LIBRARY):
            found = f" in {frame.f_code.co_name} ({path.name}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return found
