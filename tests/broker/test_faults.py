"""What the client library raises, in sentences; the cases that a test broker cannot be brought to."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from aiormq import exceptions as amqp

from flow.broker import faults
from flow.broker.frames import BrokenStream
from flow.broker.publication import publication
from flow.broker.tap import SilentBroker
from flow.broker.url import BrokerUrl
from flow.errors import (
    AccessDenied,
    BrokerError,
    CertificateRejected,
    ConnectionLost,
    NotFound,
    NoVirtualHost,
    PublishFailed,
    PublishTimedOut,
    TopologyMismatch,
    Unanswered,
)

CANARY = "s3cret-canary"
URL = BrokerUrl(host="broker.example", port=5671, vhost="v", user="u", password=CANARY, tls=True)
PLACE = "broker.example:5671"
MESSAGE = publication("x", "k", b"12345", None, None, "text/plain", 30.0)


def caused(cause: BaseException) -> amqp.AMQPConnectionError:
    error = amqp.AMQPConnectionError(*cause.args)
    error.__cause__ = cause
    return error


def unverified(reason: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = reason
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "failed")
    error.reason = reason
    return error


NO_OPEN_OK = amqp.InvalidFrameError("Expected one of ['Connection.OpenOk'], got <Connection.Close object>")


@pytest.mark.parametrize(
    ("error", "reply", "kind", "beginning"),
    [
        (
            amqp.ProbableAuthenticationError("ACCESS_REFUSED"),
            (403, "ACCESS_REFUSED"),
            AccessDenied,
            f"The broker at {PLACE} refused the login of user u",
        ),
        (
            amqp.AuthenticationError("EXTERNAL", ["PLAIN"]),
            None,
            AccessDenied,
            f"The broker at {PLACE} offers no login by password",
        ),
        (
            NO_OPEN_OK,
            (530, "NOT_ALLOWED - vhost v not found"),
            NoVirtualHost,
            f"There is no virtual host v at {PLACE}",
        ),
        (
            NO_OPEN_OK,
            (530, "NOT_ALLOWED - access to vhost 'v' refused for user 'u'"),
            AccessDenied,
            f"User u may not use the virtual host v of {PLACE}",
        ),
        (
            NO_OPEN_OK,
            (541, "INTERNAL_ERROR - vhost v is down"),
            ConnectionLost,
            f"The broker does not open the virtual host v of {PLACE} now: INTERNAL",
        ),
        (
            NO_OPEN_OK,
            None,
            AccessDenied,
            f"User u may not use the virtual host v of {PLACE}, or it does not exist",
        ),
        (
            caused(unverified("certificate has expired")),
            None,
            CertificateRejected,
            f"The certificate of {PLACE} is not accepted (certificate has expired)",
        ),
        (
            caused(tls("WRONG_VERSION_NUMBER")),
            None,
            CertificateRejected,
            f"The port {PLACE} does not speak TLS",
        ),
        (
            caused(tls("TLSV1_ALERT_PROTOCOL_VERSION")),
            None,
            CertificateRejected,
            f"The TLS handshake with {PLACE} failed (TLSV1_ALERT_PROTOCOL_VERSION)",
        ),
        (
            caused(socket.gaierror(-2, "Name or service not known")),
            None,
            ConnectionLost,
            "The host broker.example cannot be resolved",
        ),
        (
            caused(ConnectionRefusedError(111, "Connect call failed")),
            None,
            ConnectionLost,
            f"Nothing listens at {PLACE}",
        ),
        (
            caused(
                OSError(
                    "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 111] …"
                )
            ),
            None,
            ConnectionLost,
            f"Nothing listens at {PLACE}",
        ),
        (
            caused(OSError(113, "No route to host")),
            None,
            ConnectionLost,
            f"The broker at {PLACE} cannot be reached: No route to host",
        ),
        (
            caused(TimeoutError(110, "Connection timed out")),
            None,
            ConnectionLost,
            f"The broker at {PLACE} cannot be reached: Connection timed out",
        ),
        (
            caused(ConnectionResetError(104, "reset")),
            None,
            ConnectionLost,
            f"The broker at {PLACE} closed the connection before it was open",
        ),
        (
            amqp.AMQPConnectionError("Server connection unexpectedly closed"),
            None,
            ConnectionLost,
            f"The broker at {PLACE} closed the connection before",
        ),
        (
            amqp.ConnectionClosed(320, "CONNECTION_FORCED - shutdown"),
            (320, "CONNECTION_FORCED - shutdown"),
            ConnectionLost,
            f"The broker at {PLACE} closed the connection: CONNECTION_FORCED - shutdown",
        ),
        (
            amqp.IncompatibleProtocolError(),
            None,
            ConnectionLost,
            f"What listens at {PLACE} does not speak AMQP 0-9-1",
        ),
        (
            BrokenStream("a frame of the unknown type 72"),
            None,
            ConnectionLost,
            f"What listens at {PLACE} does not speak AMQP 0-9-1",
        ),
        (
            asyncio.CancelledError(),
            None,
            ConnectionLost,
            f"The broker at {PLACE} closed the connection before",
        ),
    ],
)
def test_faults_of_opening(
    error: BaseException, reply: tuple[int, str] | None, kind: type[BrokerError], beginning: str
) -> None:
    """R25: configuration is told apart from what may pass; R42: no sentence has the password."""
    told = faults.opening(error, URL, reply)

    assert type(told) is kind
    assert str(told).startswith(beginning)
    assert CANARY not in str(told)


@pytest.mark.parametrize(
    ("error", "kind", "beginning"),
    [
        (
            amqp.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost 'v'"),
            NotFound,
            f"The queue q does not exist in the virtual host v of {PLACE}: "
            "run flow setup --queue q, or correct its name",
        ),
        (
            amqp.ChannelNotFoundEntity(
                "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost 'v' is down or inaccessible"
            ),
            ConnectionLost,
            "The queue q is not available now",
        ),
        (
            amqp.ChannelAccessRefused(
                "ACCESS_REFUSED - access to queue 'q' in vhost 'v' refused for user 'u'"
            ),
            AccessDenied,
            "User u may not read the queue q",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - queue 'q' in vhost 'v' in exclusive use"),
            ConnectionLost,
            "The queue q is held by another consumer",
        ),
        (
            amqp.ChannelLockedResource("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"),
            ConnectionLost,
            "The queue q is held by another",
        ),
        (
            amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - queue 'q' is a stream"),
            TopologyMismatch,
            "The broker refuses to consume from the queue q: PRECONDITION",
        ),
        (
            amqp.ConnectionInternalError("INTERNAL_ERROR - timeout"),
            ConnectionLost,
            "The broker closed the connection: INTERNAL_ERROR",
        ),
        (amqp.ChannelInvalidStateError("closed"), ConnectionLost, "The connection to the broker broke off"),
    ],
)
def test_faults_of_consuming(error: BaseException, kind: type[BrokerError], beginning: str) -> None:
    """R25: only what somebody has to set right is no ConnectionLost."""
    told = faults.consuming(error, URL, "q")

    assert type(told) is kind
    assert str(told).startswith(beginning)


@pytest.mark.parametrize(
    ("error", "reply", "sentence"),
    [
        (None, None, "The connection to the broker broke off"),
        (asyncio.CancelledError(), None, "The connection to the broker broke off"),
        (ConnectionResetError(104, "reset"), None, "The connection to the broker broke off"),
        (
            None,
            (320, "CONNECTION_FORCED\n - bye"),
            "The broker closed the connection: CONNECTION_FORCED - bye",
        ),
        (amqp.ConnectionClosed(320, "bye"), None, "The broker closed the connection: bye"),
        (amqp.ChannelClosed(None, None), None, "The connection to the broker broke off"),
        (
            amqp.ChannelPreconditionFailed("unknown delivery tag 7"),
            None,
            "The broker closed the channel: unknown delivery tag 7",
        ),
        (SilentBroker("The broker has been silent for 4.1 s"), None, "The broker has been silent for 4.1 s"),
        (
            BrokenStream("The broker sent a frame of the unknown type 9"),
            None,
            "The broker sent a frame of the unknown type 9",
        ),
        (amqp.InvalidFrameError("odd"), None, "The broker sent what is not AMQP 0-9-1: odd"),
        (
            caused(TimeoutError(110, "Connection timed out")),
            None,
            "The connection to the broker carries nothing any more: it timed out",
        ),
        (NotFound("no queue"), None, "no queue"),
    ],
)
def test_ends_of_a_session(error: BaseException | None, reply: tuple[int, str] | None, sentence: str) -> None:
    """R26, R30: an open session that ends is always a lost connection."""
    told = faults.lost(error, reply)

    assert type(told) is ConnectionLost
    assert str(told) == sentence


@pytest.mark.parametrize(
    ("error", "kind", "beginning"),
    [
        (
            amqp.ChannelNotFoundEntity("NOT_FOUND - no exchange 'x' in vhost 'v'"),
            NotFound,
            "The exchange x does not exist",
        ),
        (
            amqp.ChannelNotFoundEntity("NOT_FOUND - no exchange 'other' in vhost 'v'"),
            Unanswered,
            "The connection broke under a message",
        ),
        (
            amqp.ChannelAccessRefused(
                "ACCESS_REFUSED - access to topic 'k' in exchange 'x' in vhost 'v' refused"
            ),
            AccessDenied,
            "User u may not publish to exchange x with the key k",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - access to exchange 'other' in vhost 'v' refused"),
            Unanswered,
            "The connection broke",
        ),
        (
            amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - message size 5 is larger"),
            PublishFailed,
            "The broker refused a message",
        ),
        (
            amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - message size 6 is larger"),
            Unanswered,
            "The connection broke",
        ),
        (
            amqp.ChannelInvalidStateError("closed"),
            ConnectionLost,
            "The connection broke before a message for exchange x with the key k was sent",
        ),
        (
            asyncio.CancelledError(),
            Unanswered,
            "The connection broke under a message for exchange x with the key k",
        ),
        (
            TimeoutError(),
            PublishTimedOut,
            "The broker did not confirm a message for exchange x with the key k in 30 s: it may",
        ),
    ],
)
def test_faults_of_publishing(error: BaseException, kind: type[BrokerError], beginning: str) -> None:
    told = faults.publishing(error, MESSAGE, URL)

    assert type(told) is kind
    assert str(told).startswith(beginning)


def test_words_of_the_broker_are_cut() -> None:
    assert len(str(faults.lost(None, (320, "x" * 5000)))) < 400


def test_files_of_tls_are_named() -> None:
    url = BrokerUrl(host="h", port=1, user="u", password="p", tls=True, cafile=Path("/no/such/ca.pem"))

    with pytest.raises(CertificateRejected, match=r"The TLS files /no/such/ca\.pem cannot be used"):
        url.context()
