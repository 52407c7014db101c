"""Certificates for the names that these tests call."""

import pytest

from tests.nodes.rabbitmq_node import Certificate


@pytest.fixture(scope="session")
def hooks_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for hooks.example.org and localhost, and the authority that signed it."""
    return Certificate.issued(tmp_path_factory.mktemp("hooks"), "hooks.example.org", "localhost")
