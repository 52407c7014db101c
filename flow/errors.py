"""The errors flow raises: one sentence each, with the name, the rule and the value."""


class FlowError(Exception):
    """The root of every error that flow itself raises; verdicts of a pipeline are not among them."""


class ConfigError(FlowError):
    """Something is wrong with the options, the settings or the set-up; known before consuming starts."""


class TargetError(ConfigError):
    """What was asked to run cannot be found, imported or taken for a pipeline."""


class EndedUnexpectedly(FlowError):
    """A part of the process ended that must not; the process ends with it, for its messages come again."""


class BrokerError(FlowError):
    """The broker, or the way to it, refused or failed."""


class ConnectionLost(BrokerError):
    """The session with the broker ended without being asked; consuming goes on with a new one."""


class Unanswered(ConnectionLost):
    """The connection broke before the broker answered for a published message: it may have arrived or not."""


class ConsumerCancelled(ConnectionLost):
    """The broker cancelled the consumer: its queue was deleted, or the node that holds it went away."""


class TopologyMismatch(BrokerError):
    """A queue or an exchange exists with other properties than asked for (reply code 406)."""


class InUse(BrokerError):
    """A queue is not deleted, for it holds messages or somebody reads it."""


class NotFound(BrokerError):
    """A queue, an exchange or a virtual host does not exist (reply code 404)."""


class NoVirtualHost(NotFound):
    """The virtual host does not exist, so that nothing in it can be found."""


class AccessDenied(BrokerError):
    """The account may not do this: wrong login, or no permission (reply codes 403 and 530)."""


class CertificateRejected(BrokerError):
    """The TLS certificate of the broker could not be verified."""


class PublishFailed(BrokerError):
    """The broker did not take responsibility for a published message: returned, refused or not confirmed."""


class PublishReturned(PublishFailed):
    """The broker gave a published message back, as no queue takes it."""


class PublishTimedOut(PublishFailed):
    """The broker did not confirm a published message in time: it may have arrived or not."""


class DecodeError(FlowError):
    """The bytes or properties of a message cannot be read; the text names the path, never the value."""


class WrongMark(FlowError, ValueError):
    """A callback decided of a message what is not its to decide; the text names the message by its id."""


class LedgerError(FlowError):
    """The ledger could not be read or written."""


class DatabaseError(FlowError):
    """The database of the records refused or failed; the text quotes no value."""


class DatabaseDown(DatabaseError):
    """The database cannot be reached, or did not answer in time: the same may succeed later."""


class RowRefused(DatabaseError):
    """The database never takes such a row: it breaks a constraint, or holds what cannot be stored."""
