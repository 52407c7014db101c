"""What went wrong, in one sentence that names the thing and says what to do; never with a password."""

import asyncio
import socket
import ssl

from aiormq import exceptions as amqp

from flow.broker.border import Expired
from flow.broker.frames import BrokenStream
from flow.broker.publication import Publication
from flow.broker.tap import SilentBroker
from flow.broker.url import BrokerUrl
from flow.campaign_server import server_queue
from flow.errors import (
    AccessDenied,
    BrokerError,
    CertificateRejected,
    ConnectionLost,
    NotFound,
    NoVirtualHost,
    PublishFailed,
    PublishReturned,
    PublishTimedOut,
    TopologyMismatch,
    Unanswered,
)
from flow.topology import made_with

LONGEST_QUOTE = 300  # characters of the broker's own words
NOT_FOUND, ACCESS_REFUSED, NOT_ALLOWED = 404, 403, 530  # reply codes of AMQP 0-9-1


def opening(error: BaseException, url: BrokerUrl, reply: tuple[int, str] | None = None) -> BrokerError:
    """Translate what ended the opening of a connection; *reply* is how the broker closed it, if it did."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, Expired):
        return ConnectionLost(
            f"The broker at {url.place} did not answer within {error.seconds:g} s: "
            "check that it runs and is reachable"
        )
    if isinstance(error, amqp.ProbableAuthenticationError):
        return AccessDenied(
            f"The broker at {url.place} refused the login of user {url.user}: check user name and password"
        )
    if isinstance(error, amqp.AuthenticationError):
        return AccessDenied(f"The broker at {url.place} offers no login by password (PLAIN): enable it there")
    if isinstance(error, amqp.ProtocolSyntaxError) and "OpenOk" in str(error):
        return _vhost(url, reply)
    if isinstance(cause, ssl.SSLError):
        return _tls(cause, url)
    if reply is not None:
        return ConnectionLost(f"The broker at {url.place} closed the connection: {quoted(reply[1])}")
    if isinstance(error, amqp.ProtocolSyntaxError | amqp.IncompatibleProtocolError | BrokenStream):
        return ConnectionLost(f"What listens at {url.place} does not speak AMQP 0-9-1: correct host and port")
    if isinstance(cause, OSError) and not isinstance(cause, amqp.AMQPError):
        return _unreachable(cause, url)
    if isinstance(error, amqp.ConnectionClosed):
        return ConnectionLost(f"The broker at {url.place} closed the connection: {_words(error)}")
    return ConnectionLost(f"The broker at {url.place} closed the connection before it was open")


def needs_tls(url: BrokerUrl) -> CertificateRejected:
    """Tell that the port speaks TLS and the URL does not say so."""
    return CertificateRejected(f"The port {url.place} speaks TLS: begin the URL with amqps://, not amqp://")


def consuming(error: BaseException, url: BrokerUrl, queue: str) -> BrokerError:
    """Translate what the broker answered when *queue* was asked for."""
    words = _words(error)
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, amqp.ChannelNotFoundEntity):
        if "down or inaccessible" in words:  # the node that holds the queue; it comes back
            return ConnectionLost(f"The queue {queue} is not available now: {words}")
        return no_queue(url, queue)
    if isinstance(error, amqp.ChannelLockedResource) or "exclusive" in words:
        return ConnectionLost(f"The queue {queue} is held by another consumer alone: {words}")
    if isinstance(error, amqp.ChannelAccessRefused):
        return AccessDenied(
            f"User {url.user} may not read the queue {queue} in the virtual host {url.vhost} of {url.place}: "
            "grant the read permission"
        )
    if isinstance(error, amqp.ChannelPreconditionFailed):
        return TopologyMismatch(f"The broker refuses to consume from the queue {queue}: {words}")
    return lost(error)


def no_queue(url: BrokerUrl, queue: str) -> NotFound:
    """Tell that *queue* is missing, and who makes it: `flow setup` makes none of a campaign server."""
    if server_queue(queue) is not None:
        return NotFound(f"{queue} is missing: have the campaign server declare it, or correct its name")
    return NotFound(
        f"The queue {queue} does not exist in the virtual host {url.vhost} of {url.place}: "
        f"run {made_with(queue)}, or correct its name"
    )


def lost(error: BaseException | None, reply: tuple[int, str] | None = None) -> ConnectionLost:
    """Translate what ended an open session; *reply* is how the broker closed it, if it did."""
    if isinstance(error, ConnectionLost):
        return error
    if isinstance(error, Expired):
        return ConnectionLost(f"The broker did not answer within {error.seconds:g} s")
    if reply is not None:
        return ConnectionLost(f"The broker closed the connection: {quoted(reply[1])}")
    if isinstance(error, BrokerError):
        return ConnectionLost(str(error))
    if isinstance(error, amqp.ChannelClosed) and not closed_in_order(error):
        return ConnectionLost(f"The broker closed the channel: {_words(error)}")
    if isinstance(error, amqp.ConnectionClosed):
        return ConnectionLost(f"The broker closed the connection: {_words(error)}")
    if isinstance(error, BrokenStream | SilentBroker):
        return ConnectionLost(str(error))
    if isinstance(error, amqp.ProtocolSyntaxError):
        return ConnectionLost(f"The broker sent what is not AMQP 0-9-1: {_words(error)}")
    if isinstance(error, TimeoutError) or isinstance(error.__cause__ if error else None, TimeoutError):
        return ConnectionLost("The connection to the broker carries nothing any more: it timed out")
    return ConnectionLost("The connection to the broker broke off")


def closed_in_order(error: BaseException | None) -> bool:
    """Whether a channel ended because we asked for it, and the broker answered."""
    return isinstance(error, amqp.ChannelClosed) and error.args[-1:] == (None,)


def publishing(
    error: BaseException, message: Publication, url: BrokerUrl, *, blocked: bool = False
) -> BrokerError:
    """Translate why *message* is not known to be with the broker; it may have *blocked* publishers."""
    where, words = message.destination, _words(error)
    exchange = f"exchange '{message.exchange or 'amq.default'}'"
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, amqp.PublishError):
        if message.exchange:
            return PublishReturned(f"No queue takes messages for {where}: bind one or correct the key")
        return PublishReturned(f"There is no queue {message.routing_key}: correct its name or have it made")
    if isinstance(error, amqp.DeliveryError):
        return PublishFailed(f"The broker refused a message for {where}: a queue there is full or down")
    if isinstance(error, TimeoutError):
        why = (
            "it blocks publishers now, for want of memory or disk"
            if blocked
            else "it may have arrived or not"
        )
        return PublishTimedOut(
            f"The broker did not confirm a message for {where} in {message.deadline:g} s: {why}"
        )
    if isinstance(error, amqp.ChannelNotFoundEntity) and exchange in words:
        return NotFound(
            f"The exchange {message.exchange} does not exist in the virtual host {url.vhost} of {url.place}: "
            "correct its name or have it made"
        )
    if isinstance(error, amqp.ChannelAccessRefused) and exchange in words:
        return AccessDenied(f"User {url.user} may not publish to {where}: grant the write permission")
    if isinstance(error, amqp.ChannelPreconditionFailed) and str(len(message.body)) in words:
        return PublishFailed(f"The broker refused a message for {where}: {words}")
    if isinstance(error, amqp.ChannelInvalidStateError):
        return ConnectionLost(f"The connection broke before a message for {where} was sent")
    return Unanswered(f"The connection broke under a message for {where}: it may have arrived or not")


def quoted(text: str | None) -> str:
    """Return the broker's own words on one line, cut to 300 characters."""
    return " ".join((text or "no reason given").split())[:LONGEST_QUOTE]


def _vhost(url: BrokerUrl, reply: tuple[int, str] | None) -> BrokerError:
    """Tell apart why the virtual host could not be opened, as far as the broker said."""
    words = quoted(reply[1]) if reply else ""
    where = f"the virtual host {url.vhost} of {url.place}"
    if reply is None:
        return AccessDenied(f"User {url.user} may not use {where}, or it does not exist: check both")
    if "not found" in words:
        return NoVirtualHost(
            f"There is no virtual host {url.vhost} at {url.place}: correct the URL or have it made"
        )
    if "refused for user" in words:
        return AccessDenied(f"User {url.user} may not use {where}: grant permissions on it")
    return ConnectionLost(f"The broker does not open {where} now: {words}")


def _tls(error: ssl.SSLError, url: BrokerUrl) -> CertificateRejected:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return CertificateRejected(
            f"The certificate of {url.place} is not accepted ({reason}): "
            "correct the host name, or name the authority with cafile=FILE"
        )
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        return CertificateRejected(f"The port {url.place} does not speak TLS: use the TLS port, usually 5671")
    return CertificateRejected(f"The TLS handshake with {url.place} failed ({error.reason}): check both ends")


def _unreachable(error: OSError, url: BrokerUrl) -> ConnectionLost:
    if isinstance(error, socket.gaierror):
        return ConnectionLost(f"The host {url.host} cannot be resolved: correct the URL or the name service")
    if isinstance(error, ConnectionRefusedError) or "Errno 111" in str(error):
        return ConnectionLost(
            f"Nothing listens at {url.place}: start the broker, or correct host and port of the URL"
        )
    if isinstance(error, ConnectionResetError | BrokenPipeError | asyncio.IncompleteReadError):
        return ConnectionLost(f"The broker at {url.place} closed the connection before it was open")
    reason = error.strerror or type(error).__name__
    return ConnectionLost(f"The broker at {url.place} cannot be reached: {quoted(reason)}")


def _words(error: BaseException) -> str:
    """Return the last text among the arguments of *error*: in aiormq's errors, the broker's own words."""
    texts = [argument for argument in error.args if isinstance(argument, str)]
    return quoted(texts[-1] if texts else None)
