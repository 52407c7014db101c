"""The broker's address: what is understood, what is refused and with which sentence."""

import ssl
import traceback
from pathlib import Path

import pytest

from flow.broker.url import BrokerUrl
from flow.errors import CertificateRejected, ConfigError
from tests.nodes.rabbitmq_node import Certificate

CANARY = "s3cret-canary"


def parts(text: str) -> tuple[str, int, str, str, str, bool]:
    url = BrokerUrl.parse(text)
    return url.host, url.port, url.vhost, url.user, url.password, url.tls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://localhost", ("localhost", 5672, "/", "guest", "guest", False)),
        ("amqp://localhost/", ("localhost", 5672, "/", "guest", "guest", False)),
        ("amqp://localhost//", ("localhost", 5672, "/", "guest", "guest", False)),
        ("amqp://localhost/%2F", ("localhost", 5672, "/", "guest", "guest", False)),
        ("amqp://localhost/%2f%2F", ("localhost", 5672, "//", "guest", "guest", False)),
        ("amqp://guest@127.0.0.1:5673/a", ("127.0.0.1", 5673, "a", "guest", "guest", False)),
        ("amqp://[::1]:5673/a%2Fb", ("::1", 5673, "a/b", "guest", "guest", False)),
        ("amqps://u:p@broker.example/v", ("broker.example", 5671, "v", "u", "p", True)),
        ("AMQPS://u:p@Broker.Example/v", ("broker.example", 5671, "v", "u", "p", True)),
        ("amqps://u%40x:p%3A%2F%3F%23%25@h/v%C3%BC", ("h", 5671, "vü", "u@x", "p:/?#%", True)),
        ("amqps://u:p+q@h/a+b", ("h", 5671, "a+b", "u", "p+q", True)),
        ("amqps://u:p@in@h/v", ("h", 5671, "v", "u", "p@in", True)),
        (" amqp://localhost/v\n", ("localhost", 5672, "v", "guest", "guest", False)),
    ],
)
def test_url_is_read(text: str, expected: tuple[str, int, str, str, str, bool]) -> None:
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The broker URL is empty"),
        ("  ", "The broker URL is empty"),
        (f"u:{CANARY}@host/v", "must begin with amqp:// or amqps://: write"),
        (f"{CANARY}:x@host/v", "must begin with amqp:// or amqps://: write"),
        (f"http://u:{CANARY}@host/v", "must begin with amqp:// or amqps://, not http://"),
        (f"{CANARY}://u:{CANARY}@host/v", "must begin with amqp:// or amqps://: write"),
        (f"amqp://u:{CANARY}/x@host/v", "a / ? or # in it"),
        (f"amqp://u:{CANARY}?x@host/v", "a / ? or # in it"),
        (f"amqp://u:{CANARY}#x@host/v", "a / ? or # in it"),
        (f"amqp://u:{CANARY}@host/v#x", "a # in it"),
        (f"amqp://u:{CANARY}%zz@host/v", "The password of the broker URL has a % in it"),
        (f"amqp://u:{CANARY}%ff@host/v", "The password of the broker URL is not percent-encoded UTF-8"),
        (f"amqp://u:{CANARY} x@host/v", "white space"),
        (f"amqp://u:{CANARY}\nx@host/v", "white space"),
        (f"amqp://u:{CANARY}@host:port/v", "The port of the broker URL must be a number from 1 to 65535"),
        (f"amqp://u:{CANARY}@host:0/v", "from 1 to 65535, got 0"),
        (f"amqp://u:{CANARY}@host:65536/v", "from 1 to 65535"),
        (f"amqp://u:{CANARY}", "The port of the broker URL must be a number"),
        (f"amqp://u:{CANARY}@/v", "names no host"),
        (f"amqp://u:{CANARY}@[::1/v", "The host of the broker URL cannot be read"),
        (f"amqp://u:{CANARY}@ho$t/v", "no host name"),
        (f"amqp://u:{CANARY}@host/a/b", "The virtual host of the broker URL has a / in it: write %2F"),
        (f"amqp://u:{CANARY}@host/{'x' * 256}", "must fit 255 bytes, got 256"),
        ("amqp://host/v", "names no user for host"),
        ("amqp://u@host/v", "no password for user u at host"),
        ("amqp://u:@host/v", "no password for user u at host"),
        ("amqp://u@localhost/v", "no password for user u at localhost"),
        (f"amqps://u:{CANARY}@host/v?no_verify_ssl=0", "certificates are always verified"),
        (f"amqps://u:{CANARY}@host/v?verify=0", "has no parameter verify"),
        (f"amqps://u:{CANARY}@host/v?cafil=x", "did you mean cafile?"),
        (f"amqps://u:{CANARY}@host/v?heartbeat=5", "has no parameter heartbeat"),
        (
            f"amqps://u:{CANARY}@host/v?cafile=/no/such/file",
            "cafile of the broker URL must be a readable file",
        ),
        (f"amqps://u:{CANARY}@host/v?cafile=", "must be a readable file, got nothing"),
    ],
)
def test_wrong_url_is_refused_with_one_sentence(text: str, sentence: str) -> None:
    """R02: before any network traffic; R42: the password is never quoted."""
    with pytest.raises(ConfigError) as caught:
        BrokerUrl.parse(text)

    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tls_files_need_amqps(certificate: Certificate) -> None:
    with pytest.raises(ConfigError, match="cafile of the broker URL needs amqps://"):
        BrokerUrl.parse(f"amqp://u:p@host/v?cafile={certificate.authority}")


def test_key_needs_certificate(certificate: Certificate) -> None:
    with pytest.raises(ConfigError, match="keyfile of the broker URL needs certfile"):
        BrokerUrl.parse(f"amqps://u:p@host/v?keyfile={certificate.key}")


def test_parameter_is_given_once(certificate: Certificate) -> None:
    twice = f"cafile={certificate.authority}&cafile={certificate.authority}"

    with pytest.raises(ConfigError, match="the parameter cafile twice"):
        BrokerUrl.parse(f"amqps://u:p@host/v?{twice}")


def test_password_is_masked_wherever_the_url_is_shown() -> None:
    """R42: in str, repr and format."""
    url = BrokerUrl.parse(f"amqps://u%2Fx:{CANARY}@host:1234/a%2Fb")

    assert str(url) == f"{url}" == "amqps://u%2Fx:***@host:1234/a%2Fb"
    assert CANARY not in repr(url)


@pytest.mark.parametrize("password", ["p", "ä/ö:@?#%+ &=", "%2F"])
def test_client_library_gets_login_heartbeat_and_name(password: str) -> None:
    from yarl import URL

    url = BrokerUrl(host="::1", port=1234, user="ü@/", password=password)

    full = URL(url.full(name="flow a&b", heartbeat=7))

    assert (full.scheme, full.host, full.port, full.user, full.password) == (
        "amqp",
        "::1",
        1234,
        "ü@/",
        password,
    )
    assert dict(full.query) == {"heartbeat": "7", "name": "flow a&b"}


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("amqp://u:p@broker.example", True),
        ("amqps://u:p@broker.example", False),
        ("amqp://localhost", False),
        ("amqp://broker.localhost", False),
        ("amqp://127.8.9.10", False),
        ("amqp://[::1]", False),
        ("amqp://u:p@10.0.0.1", True),
    ],
)
def test_plain_connections_across_a_network_are_noticed(text: str, clear: bool) -> None:
    assert BrokerUrl.parse(text).in_the_clear is clear


def test_context_verifies_and_speaks_tls_1_2_at_least(certificate: Certificate) -> None:
    url = BrokerUrl.parse(f"amqps://u:p@host?cafile={certificate.authority}")

    context = url.context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("parameter", ["cafile", "certfile"])
def test_file_without_a_certificate_is_named(parameter: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    url = BrokerUrl.parse(f"amqps://u:p@host?{parameter}={wrong}")

    with pytest.raises(CertificateRejected, match=r"wrong\.pem cannot be used"):
        url.context()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AMQP_URL": "amqps://u:p@h/v"}, "amqps://u:***@h:5671/v"),
        ({"AMQP_URL": "amqps://u:p@h/v", "PROCA_URL": "amqps://x:y@z"}, "amqps://u:***@h:5671/v"),
        ({"PROCA_URL": "amqps://u:p@h/v"}, "amqps://u:***@h:5671/v"),
        (
            {"PROCA_URL": "amqps://h/v", "PROCA_USERNAME": "u", "PROCA_PASSWORD": "p"},
            "amqps://u:***@h:5671/v",
        ),
        (
            {"PROCA_URL": "amqps://u@h/v", "PROCA_USERNAME": "u", "PROCA_PASSWORD": "p"},
            "amqps://u:***@h:5671/v",
        ),
    ],
)
def test_environment_names_the_broker(environment: dict[str, str], expected: str) -> None:
    assert str(BrokerUrl.from_environment(environment)) == expected


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "No broker is named: set AMQP_URL or PROCA_URL"),
        ({"AMQP_URL": "", "FLOW_AMQP_URL": "http://x"}, "must begin with amqp:// or amqps://"),
        ({"PROCA_USERNAME": "u"}, "PROCA_USERNAME is set, but no broker is: set AMQP_URL or PROCA_URL"),
        ({"AMQP_URL": "amqp://localhost", "AMQP_URL_FILE": "/x"}, "AMQP_URL and AMQP_URL_FILE are both set"),
        (
            {"AMQP_URL_FILE": "/no/such/file"},
            r"^AMQP_URL_FILE names a file that cannot be read \(No such file or directory\)$",
        ),
        ({"PROCA_URL": "amqps://h/v", "PROCA_USERNAME": "u"}, "no password for user u"),
        (
            {"PROCA_URL": "amqps://a:p@h/v", "PROCA_USERNAME": "b"},
            "says user a and PROCA_USERNAME says b",
        ),
    ],
)
def test_environment_that_names_no_broker_is_refused(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BrokerUrl.from_environment(environment)


@pytest.mark.parametrize("name", ["AMQP_URL_FILE", "PROCA_URL_FILE", "PROCA_PASSWORD_FILE"])
def test_a_url_given_as_the_name_of_a_file_is_not_shown(name: str) -> None:
    """`AMQP_URL_FILE=amqps://user:hunter2@host/v` is a slip that must not put the password into a log."""
    environment = {"PROCA_URL": "amqps://h/v", "PROCA_USERNAME": "u", name: "amqps://user:hunter2@host/v"}
    if name == "PROCA_URL_FILE":
        del environment["PROCA_URL"]

    with pytest.raises(ConfigError) as caught:
        BrokerUrl.from_environment(environment)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value) == f"{name} names a file that cannot be read (No such file or directory)"


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("amqps://broker.example/v\n")
    (tmp_path / "password").write_text(" p w\n")
    environment = {
        "PROCA_URL_FILE": str(tmp_path / "url"),
        "PROCA_USERNAME": "u",
        "PROCA_PASSWORD_FILE": str(tmp_path / "password"),
    }

    assert BrokerUrl.from_environment(environment).password == " p w"


def test_a_file_is_read_again_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F46: a file that is being written, or was taken away, changes nothing."""
    password = tmp_path / "password"
    password.write_text("old")
    environment = {"PROCA_URL": "amqps://u@h/v", "PROCA_PASSWORD_FILE": str(password)}
    url = BrokerUrl.from_environment(environment)

    password.write_text("new")
    second = url.again()
    password.write_text("")
    third = second.again()
    password.write_text("newest")

    assert [one.password for one in (url, second, third, third.again())] == ["old", "new", "new", "newest"]
    assert "PROCA_PASSWORD_FILE names an empty file: the address of the broker stays" in caplog.text
    assert BrokerUrl.parse("amqp://localhost").again() == BrokerUrl.parse("amqp://localhost")


def test_virtual_host_can_be_replaced() -> None:
    assert str(BrokerUrl.parse("amqp://localhost/a").on("b/c")) == "amqp://guest:***@localhost:5672/b%2Fc"


def test_further_addresses_follow_after_white_space() -> None:
    url = BrokerUrl.parse("amqps://flow:s3cret@one/v\n amqps://flow:0ther@two:5555/v ")

    (other,) = url.alternatives
    assert (url.host, url.vhost, other.host, other.port, other.password) == ("one", "v", "two", 5555, "0ther")
    assert url.on("w").alternatives[0].vhost == "w"
    assert "0ther" not in repr(url) + str(url)
