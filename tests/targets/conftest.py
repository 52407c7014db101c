"""Certificates for the names that these tests call."""

import socket

import pytest
import trustme

from tests.nodes.rabbitmq_node import Certificate


@pytest.fixture(scope="session")
def hooks_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for hooks.example.org and localhost, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("hooks")
    authority = trustme.CA()
    issued = authority.issue_cert("hooks.example.org", "localhost")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return Certificate(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


@pytest.fixture
def unused_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
