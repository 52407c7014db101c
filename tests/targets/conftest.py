"""Certificates for the names that these tests call."""

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
