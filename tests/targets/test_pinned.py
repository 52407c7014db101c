"""Which addresses may be called, and that what is checked is what is called."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import ConfigError
from flow.outcome import Unavailable
from flow.settings import Secret
from flow.targets import pinned
from flow.targets.pinned import refusal
from flow.targets.webhook import WebhookTarget
from tests.nodes.rabbitmq_node import Certificate
from tests.targets.receiver import receiving

SECRET = Secret("a-secret-of-the-tests")


class Names:
    """A resolver that answers one list after another, the last one again and again, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        await anyio.lowlevel.checkpoint()
        found = self.answers[0]
        if len(self.answers) > 1:
            del self.answers[0]
        if not found:
            raise OSError("not found")
        return found


NEVER = [
    *("0.0.0.0", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "192.0.0.192"),
    *("192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    *("255.255.255.255", "168.63.129.16", "192.88.99.1", "::", "::ffff:8.8.8.8", "::ffff:127.0.0.1"),
    *("::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2001::1", "2001:db8::1", "3fff::1", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff02::1", "fd00:ec2::254", "100::1", "5f00::1", "", "localhost", "8.8.8.8 ", "0x7f.1", "127.1"),
]
LOCAL = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "::1",
    "fd12::1",
]
PUBLIC = ["8.8.8.8", "172.32.0.1", "11.0.0.1", "2001:4860:4860::8888", "2a00:1450::1"]


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_which_addresses_may_be_called(private: bool, scheme: str) -> None:
    def called(addresses: list[str]) -> list[str]:
        return [one for one in addresses if refusal("the hook", one, scheme, private=private) is None]

    assert called(NEVER) == []
    assert called(LOCAL) == (LOCAL if private else [])
    assert called(PUBLIC) == (PUBLIC if scheme == "https" else [])


@given(inside=st.ip_addresses(v=4), private=st.booleans())
def test_an_address_that_hides_another_one_is_never_called(inside: IPv4Address, private: bool) -> None:
    low, high = int(inside), int(inside) << 80
    nat64, mapped, sixtofour = (int(ip_address(one)) for one in ("64:ff9b::", "::ffff:0:0", "2002::"))
    for hiding in (nat64 | low, mapped | low, sixtofour | high):
        found = str(IPv6Address(hiding))
        assert refusal("the hook", found, "https", private=private) is not None


@given(found=st.ip_addresses())
def test_an_address_that_is_not_global_is_never_called(found: IPv4Address | IPv6Address) -> None:
    if not found.is_global or found.is_multicast:
        assert refusal("the hook", str(found), "https", private=False) is not None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["64:ff9b::a00:1"], ["169.254.169.254"]]
)
async def test_a_host_with_any_address_that_may_not_be_called_is_refused_at_start(answer: list[str]) -> None:
    target = WebhookTarget("the hook", "https://hooks.example.org/", SECRET, resolve=Names(answer))

    with pytest.raises(
        ConfigError, match=r"^the host of the hook is at .*, and only public addresses may be"
    ):
        await target.__aenter__()


@pytest.mark.anyio
async def test_the_checked_address_is_called_and_no_name_resolved_again(
    hooks_certificate: Certificate,
) -> None:
    """A name that leads elsewhere at the second question cannot lead a call there."""
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with receiving(hooks_certificate) as receiver:
        async with hook(receiver.port, names, hooks_certificate) as target:
            await target.send("a", b"1")
            await target.send("b", b"2")

        assert [post.body for post in receiver.posts] == [b"1", b"2"]
        assert {post.headers["host"] for post in receiver.posts} == {f"hooks.example.org:{receiver.port}"}
        assert names.asked == [("hooks.example.org", receiver.port)]


@pytest.mark.anyio
async def test_a_name_that_leads_elsewhere_later_is_refused(
    hooks_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned, "KEPT", 0.0)
    names = Names(["127.0.0.1"], ["127.0.0.1"], ["127.0.0.1", "169.254.169.254"])
    async with receiving(hooks_certificate) as receiver:
        async with hook(receiver.port, names, hooks_certificate) as target:
            await target.send("a", b"1")
            with pytest.raises(
                Unavailable, match=r"^the host of the hook is at 169\.254\.169\.254, and only"
            ):
                await target.send("b", b"2")

        assert [post.body for post in receiver.posts] == [b"1"]


@pytest.mark.anyio
async def test_every_address_is_tried_and_all_are_looked_up_again_when_none_answers(
    hooks_certificate: Certificate,
) -> None:
    both = Names(["127.0.0.9", "127.0.0.1"])
    wrong = Names(["127.0.0.9"], ["127.0.0.1"])
    async with receiving(hooks_certificate) as receiver:
        async with hook(receiver.port, both, hooks_certificate) as target:
            await target.send("a", b"1")
        async with hook(receiver.port, wrong, hooks_certificate) as target:
            with pytest.raises(Unavailable, match=r"^the hook cannot be reached"):
                await target.send("b", b"2")
            await target.send("b", b"3")

        assert [post.body for post in receiver.posts] == [b"1", b"3"]
        assert (len(both.asked), len(wrong.asked)) == (1, 2)


@pytest.mark.anyio
async def test_a_name_that_is_not_found_may_come(hooks_certificate: Certificate) -> None:
    async with receiving(hooks_certificate) as receiver:
        async with hook(receiver.port, Names([], [], ["127.0.0.1"]), hooks_certificate) as target:
            with pytest.raises(Unavailable, match=r"cannot be reached: its name cannot be resolved$"):
                await target.send("a", b"1")
            await target.send("a", b"1")

        assert len(receiver.posts) == 1


@pytest.mark.anyio
async def test_a_name_that_takes_all_the_time_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent: the receiver is away, and the call cannot have had effect."""
    monkeypatch.setattr(pinned, "KEPT", 0.0)
    slow = False

    async def resolve(host: str, port: int) -> list[str]:
        if slow:
            await anyio.sleep_forever()
        return ["127.0.0.1"]

    url = "https://hooks.example.org/"
    target = WebhookTarget("the hook", url, SECRET, timeout=0.2, allow_private=True, resolve=resolve)
    async with target:
        slow = True
        with pytest.raises(Unavailable, match=r"^the hook cannot be reached: TimeoutError$"):
            await target.send("a", b"1")


@pytest.mark.anyio
async def test_tls_verifies_the_name_and_not_the_address(hooks_certificate: Certificate) -> None:
    async with receiving(hooks_certificate) as receiver:
        for host in ("other.example.org", "127.0.0.1"):
            target = WebhookTarget(
                "the hook",
                f"https://{host}:{receiver.port}/",
                SECRET,
                port=receiver.port,
                allow_private=True,
                cafile=str(hooks_certificate.authority),
                resolve=Names(["127.0.0.1"]),
            )
            async with target:
                with pytest.raises(Unavailable, match=r"^the hook cannot be reached: .*certificate"):
                    await target.send("a", b"1")

        async with hook(receiver.port, Names(["127.0.0.1"]), None) as target:
            with pytest.raises(Unavailable, match=r"^the hook cannot be reached: .*certificate"):
                await target.send("a", b"1")

        assert receiver.posts == []


@pytest.mark.anyio
async def test_the_machine_resolves_when_nothing_else_does(hooks_certificate: Certificate) -> None:
    async with receiving(hooks_certificate) as receiver:
        target = WebhookTarget(
            "the hook",
            f"https://localhost:{receiver.port}/",
            SECRET,
            port=receiver.port,
            allow_private=True,
            cafile=str(hooks_certificate.authority),
        )
        async with target:
            await target.send("a", b"1")

        assert len(receiver.posts) == 1


def hook(port: int, names: Names, certificate: Certificate | None) -> WebhookTarget:
    return WebhookTarget(
        "the hook",
        f"https://hooks.example.org:{port}/in",
        SECRET,
        port=port,
        allow_private=True,
        cafile=None if certificate is None else str(certificate.authority),
        resolve=names,
    )
