"""Settings from the environment and from files; secrets, which are shown nowhere."""

import copy
import dataclasses
import json
import pickle
import traceback
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pytest

from flow.errors import ConfigError
from flow.settings import Secret, Settings, load, strangers, variables

CANARY = "canary-4711"


class CrmSettings(Settings):
    """Every kind of field."""

    prefix: ClassVar = "CRM"
    url: str
    token: Secret
    timeout: float = 10.0
    attempts: int = 3
    verify: bool = True
    mode: Literal["all", "opt_in"] = "all"
    version: Literal[1, 2] = 2
    proxy: str | None
    password: Secret | None = None


SET = {"CRM_URL": "https://crm.example", "CRM_TOKEN": CANARY}


def refused(environment: dict[str, str], cls: type[Settings] = CrmSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cls, environment)
    return str(caught.value)


def test_fields_are_filled_from_variables_with_the_prefix() -> None:
    settings = load(
        CrmSettings,
        {
            **SET,
            "CRM_TIMEOUT": "2.5",
            "CRM_ATTEMPTS": "7",
            "CRM_VERIFY": "no",
            "CRM_MODE": "opt_in",
            "CRM_VERSION": "1",
            "CRM_PROXY": "http://proxy",
            "CRM_PASSWORD": "x",
            "HOME": "/root",
        },
    )

    assert settings == CrmSettings(
        url="https://crm.example",
        token=Secret(CANARY),
        timeout=2.5,
        attempts=7,
        verify=False,
        mode="opt_in",
        version=1,
        proxy="http://proxy",
        password=Secret("x"),
    )


def test_what_is_not_set_has_its_default_and_none_where_none_is_allowed() -> None:
    settings = load(CrmSettings, SET)

    assert (settings.timeout, settings.attempts, settings.verify) == (10.0, 3, True)
    assert (settings.mode, settings.version, settings.proxy, settings.password) == ("all", 2, None, None)


def test_every_field_may_come_from_a_file(tmp_path: Path) -> None:
    token, attempts = tmp_path / "token", tmp_path / "attempts"
    token.write_bytes(f"{CANARY} \n\n".encode())
    attempts.write_bytes(b"7\r\n")

    settings = load(
        CrmSettings,
        {"CRM_URL": "u", "CRM_TOKEN_FILE": str(token), "CRM_ATTEMPTS_FILE": str(attempts)},
    )

    assert settings.token.reveal() == f"{CANARY} \n", "one newline at the end is taken off, nothing else"
    assert settings.attempts == 7


def test_the_file_wins_over_the_variable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file")

    settings = load(CrmSettings, {**SET, "CRM_TOKEN_FILE": str(tmp_path / "token")})

    assert settings.token.reveal() == "from the file"


def test_all_missing_names_are_told_in_one_sentence() -> None:
    assert refused({}) == "CrmSettings needs CRM_URL and CRM_TOKEN (or CRM_TOKEN_FILE) to be set"


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files pass empty variables on for what nobody set."""
    empty = {"CRM_TOKEN_FILE": "", "CRM_TIMEOUT": ""}

    assert refused({"CRM_URL": "u", "CRM_TOKEN": "", **empty}).startswith("CrmSettings needs CRM_TOKEN (or")
    assert load(CrmSettings, {**SET, **empty}).timeout == 10.0


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("CRM_TIMEOUT", "ten", "CrmSettings: CRM_TIMEOUT must be a number, got 'ten'"),
        ("CRM_TIMEOUT", "nan", "CrmSettings: CRM_TIMEOUT must be a number, got 'nan'"),
        ("CRM_ATTEMPTS", "2.5", "CrmSettings: CRM_ATTEMPTS must be a whole number, got '2.5'"),
        ("CRM_VERIFY", "perhaps", "CrmSettings: CRM_VERIFY must be true or false, got 'perhaps'"),
        ("CRM_MODE", "some", "CrmSettings: CRM_MODE must be one of all, opt_in, got 'some'"),
        ("CRM_VERSION", "3", "CrmSettings: CRM_VERSION must be one of 1, 2, got '3'"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(variable: str, value: str, sentence: str) -> None:
    assert refused({**SET, variable: value}) == sentence


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("YES", True),
        ("on", True),
        ("1", True),
        ("False", False),
        ("off", False),
        ("0", False),
    ],
)
def test_the_words_for_true_and_false(text: str, value: bool) -> None:
    assert load(CrmSettings, {**SET, "CRM_VERIFY": text}).verify is value


def test_missing_and_wrong_are_told_together() -> None:
    assert refused({"CRM_TOKEN": CANARY, "CRM_ATTEMPTS": "x"}) == (
        "CrmSettings needs CRM_URL to be set; CRM_ATTEMPTS must be a whole number, got 'x'"
    )


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, "CRM_TOKEN_FILE names a file that cannot be read (No such file or directory)"),
        (b"\xff\xfe", "CRM_TOKEN_FILE names a file that is not UTF-8 text"),
        (b"\n", "CRM_TOKEN_FILE names an empty file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_path(
    tmp_path: Path, content: bytes | None, rule: str
) -> None:
    """The path may be the secret itself, put into the wrong variable."""
    path = tmp_path / CANARY
    if content is not None:
        path.write_bytes(content)

    assert refused({"CRM_URL": "u", "CRM_TOKEN_FILE": str(path)}) == f"CrmSettings: {rule}"


def test_a_wrong_value_from_a_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "attempts").write_text(CANARY)

    sentence = refused({**SET, "CRM_ATTEMPTS_FILE": str(tmp_path / "attempts")})

    assert sentence == "CrmSettings: CRM_ATTEMPTS_FILE must hold a whole number"


def test_a_misspelt_variable_is_told_with_the_missing_one() -> None:
    assert refused({"CRM_URL": "u", "CRM_TOKE": CANARY}) == (
        "CrmSettings needs CRM_TOKEN (or CRM_TOKEN_FILE) to be set; "
        "CRM_TOKE is set but not known (did you mean CRM_TOKEN?)"
    )


def test_a_variable_with_the_prefix_that_no_field_reads_is_told() -> None:
    told = strangers(CrmSettings, {**SET, "CRM_TIMEOT": CANARY, "CRM_COLOUR": CANARY, "crm_verify": CANARY})

    assert told == [
        "CRM_COLOUR is set but not known: correct its name, or remove it",
        "CRM_TIMEOT is set but not known (did you mean CRM_TIMEOUT?)",
        "crm_verify is set but not known (did you mean CRM_VERIFY?)",
    ]


def test_what_other_settings_read_is_known() -> None:
    """Their prefix may begin with this one."""

    class Branch(Settings):
        prefix = "CRM_BRANCH"
        url: str

    assert strangers(CrmSettings, {"CRM_BRANCH_URL": "u", "CRM_BRANCH_URLS": CANARY}) == [
        "CRM_BRANCH_URLS is set but not known: correct its name, or remove it"
    ]
    assert variables(Branch) == {"CRM_BRANCH_URL", "CRM_BRANCH_URL_FILE"}


def test_of_a_shared_prefix_only_misspelt_variables_are_told() -> None:
    """`MAIL_LINK_URL` is for one pipeline that mails, and not for the other."""

    class Shared(Settings):
        prefix = "SHARED"
        host: str

    class Mine(Shared):
        sender: str

    assert strangers(Mine, {"SHARED_HOST": "h", "SHARED_LINK_URL": "u", "SHARED_SENDR": CANARY}) == [
        "SHARED_SENDR is set but not known (did you mean SHARED_SENDER?)"
    ]


@pytest.mark.parametrize("name", ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR"])
def test_what_kubernetes_sets_for_a_service_of_this_name_is_not_told(name: str) -> None:
    service = {"CRM_SERVICE_HOST": "10.0.0.1", f"CRM_{name}": "1"}

    assert strangers(CrmSettings, service) == []
    assert strangers(CrmSettings, {"CRM_PORT": "1"}) != []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            {"__annotations__": {"tags": list[str]}},
            "Broken.tags must be str, int, float, bool, Secret, KeyStore or a Literal, perhaps None, "
            "got list[str]",
        ),
        (
            {"__annotations__": {"one": str | int}},
            "Broken.one must be str, int, float, bool, Secret, KeyStore or a Literal, perhaps None, "
            "got str | int",
        ),
        (
            {"__annotations__": {"one": "Unheard"}},
            "the annotations of Broken cannot be read: name 'Unheard' is not defined",
        ),
        ({"prefix": "crm"}, "Broken.prefix must be a name in capitals like \"CRM\", got 'crm'"),
        ({"prefix": 3}, 'Broken.prefix must be a name in capitals like "CRM", got 3'),
        (
            {"prefix": "CRM", "__annotations__": {"prefix": str}},
            "Broken.prefix must be annotated as ClassVar, or not at all",
        ),
        (
            {"prefix": "CRM", "__annotations__": {"token": str, "token_file": str}},
            "Broken.token_file needs another name: CRM_TOKEN_FILE is the file of token",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_class_is_made(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        type("Broken", (Settings,), body)

    assert str(caught.value) == sentence


def test_settings_without_a_prefix_cannot_be_filled() -> None:
    class Shared(Settings):
        url: str

    class Mine(Shared):
        prefix = "MINE"
        key: str

    assert refused({}, Shared) == 'Shared needs a prefix, like prefix = "CRM"'
    assert load(Mine, {"MINE_URL": "u", "MINE_KEY": "k"}) == Mine(url="u", key="k")


def test_rules_of_the_user_are_told_as_a_sentence() -> None:
    class Ranged(Settings):
        prefix = "R"
        rate: int

        def __post_init__(self) -> None:
            if self.rate > 10:
                raise ValueError("R_RATE must be at most 10")

    assert refused({"R_RATE": "11"}, Ranged) == "Ranged: R_RATE must be at most 10"


def test_settings_are_frozen() -> None:
    settings = load(CrmSettings, SET)

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.url = "other"  # type: ignore[misc]  # that is the point


def test_the_repr_of_settings_shows_names_only() -> None:
    """An URL may hold a password, and a token may have been declared as a text."""
    settings = load(CrmSettings, {"CRM_URL": f"https://user:{CANARY}@crm", "CRM_TOKEN": CANARY})

    assert CANARY not in f"{settings!r} {settings}"
    assert repr(settings).startswith("<CrmSettings: url, token, timeout")


def test_a_secret_is_revealed_on_purpose_only() -> None:
    secret = Secret(CANARY)

    assert secret.reveal() == CANARY
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", f"{secret!r}", "%s" % secret]  # noqa: UP031
    shown += [str([secret]), str({"token": secret}), f"{vars(type(secret))}", str(dir(secret))]
    assert all(CANARY not in text for text in shown)
    assert f"{secret:>5}" == "  ***"


@pytest.mark.parametrize(
    "write",
    [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins],
)
@pytest.mark.parametrize("wrap", [lambda secret: secret, lambda secret: load(CrmSettings, SET)])
def test_a_secret_is_never_written(write: Any, wrap: Any) -> None:
    with pytest.raises(TypeError) as caught:
        write(wrap(Secret(CANARY)))

    assert CANARY not in str(caught.value)


def test_secrets_are_equal_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("\udcff") == Secret("\udcff"), "environments may hold bytes that are no text"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert copy.deepcopy(Secret("a")) == copy.copy(Secret("a")) == Secret("a")


def test_a_secret_is_a_text() -> None:
    with pytest.raises(TypeError, match="Secret takes a str, got bytes"):
        Secret(b"x")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    "wrong",
    [
        {"CRM_TOKEN": CANARY},
        {"CRM_URL": "u", "CRM_TOKE": CANARY},
        {"CRM_URL": f"https://u:{CANARY}@crm", "CRM_TOKEN": CANARY, "CRM_TIMEOUT": "ten"},
        {"CRM_URL": "u", "CRM_TOKEN_FILE": f"/nowhere/{CANARY}"},
        {"CRM_URL": "u", "CRM_TOKEN": CANARY, "CRM_PASSWORD_FILE": CANARY},
    ],
)
def test_no_secret_is_in_a_traceback_not_even_in_one_that_shows_locals(wrong: dict[str, str]) -> None:
    def outside() -> traceback.TracebackException:
        try:
            load(CrmSettings, wrong)
        except ConfigError as error:
            inner = error.__traceback__.tb_next if error.__traceback__ else None  # without this very frame
            return traceback.TracebackException(type(error), error, inner, capture_locals=True)
        raise AssertionError("not refused")

    text = "".join(outside().format())

    assert "CrmSettings" in text
    assert CANARY not in text
