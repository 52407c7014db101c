"""`flow verify` as users start it: right pipelines pass, planted bugs are caught, seeds show them again."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import run_flow

pytestmark = pytest.mark.anyio

PLANTED = "tests.verify.planted"
SETTLED = "all right: every message was settled"
ARRIVED = f"{SETTLED}, and whatever is called delivered had reached the target before"


@pytest.mark.parametrize("target", ["pipelines.crm", "pipelines.webhook", f"{PLANTED}:Right"])
async def test_a_right_pipeline_passes_under_every_seed(target: str) -> None:
    ended = await run_flow("verify", target, "--schedules", "3")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(f"{ARRIVED}\n")
    assert len(re.findall(r"^seed \d: 41 messages: 40 delivered, 1 parked$", ended.out, re.MULTILINE)) == 3
    assert ended.out.count("faults of the broker") == 3
    assert "faults of the broker: none struck" not in ended.out
    assert "answered 500" in ended.out


async def test_pipelines_with_a_claim_and_of_sqs_pass_and_the_database_of_the_user_is_left_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "records.db"
    named = {"FLOW_DATABASE_URL": f"sqlite:///{file}"}
    for name in ("confirm", "thank_you", "moderate", "sqs", "crm"):
        ended = await run_flow("verify", f"pipelines.{name}", "--schedules", "1", **named)

        assert (ended.code, ended.err) == (0, ""), name
        assert ended.out.endswith(f"{ARRIVED}\n"), name
        assert re.search(r"^seed 1: 41 messages: \d\d delivered", ended.out, re.MULTILINE), name
    assert not file.exists()


async def test_what_may_fail_is_named() -> None:
    plain = await run_flow("verify", f"{PLANTED}:Tagging", "--schedules", "1")
    named = await run_flow("verify", f"{PLANTED}:Tagging", "--schedules", "1", "--optional", "/tag*")

    assert plain.code == 1
    assert "if that call may fail, name its path with --optional" in plain.out
    assert (named.code, named.out.endswith(f"{ARRIVED}\n")) == (0, True)


EARLY = "acknowledged before the call about them was answered"
NEVER = "called delivered, but no call about them reached the target"
FAILED = "called delivered, though the last call about them before that had failed"
TWICE = "mailed twice, in spite of the claim"
NOTHING = "called delivered, but nothing called the address in TARGET_URL"


@pytest.mark.parametrize(
    ("bug", "sentence", "seed"),
    [
        ("EarlyBatch", EARLY, 1),
        ("EarlyMessage", EARLY, 42),
        ("Swallowing", FAILED, 1),
        ("Swallowing", FAILED, 42),
        ("Half", NEVER, 1),
        ("Half", NEVER, 42),
        ("Forgetting", NOTHING, 7),
        ("Uncovered", TWICE, 1),
        ("MailingTwice", TWICE, 1),
        ("SwallowingMail", FAILED, 1),
    ],
)
async def test_a_planted_bug_is_caught_and_its_seed_shows_it_again(
    bug: str, sentence: str, seed: int
) -> None:
    ended = await run_flow("verify", f"{PLANTED}:{bug}", "--schedules", "2", "--seed", str(seed))
    again = re.search(r"^see it again: flow (.+)$", ended.out, re.MULTILINE)
    assert again is not None
    shown = await run_flow(*again[1].split())

    assert (ended.code, ended.err) == (1, "")
    assert sentence in ended.out
    assert f"wrong under seed {seed}, {seed + 1}\n" in ended.out
    assert again[1] == f"verify {PLANTED}:{bug} --seed {seed} --schedules 1"
    assert shown.code == 1
    assert sentence in shown.out
    assert f"wrong under seed {seed}\n" in shown.out


async def test_where_nothing_is_delivered_nothing_is_verified() -> None:
    ended = await run_flow("verify", f"{PLANTED}:Refusing", "--messages", "5")

    assert ended.code == 1
    assert "seed 2" not in ended.out  # the other schedules would end in the same way
    assert "seed 1: 6 messages: 6 parked\n" in ended.out
    assert "wrong: nothing was delivered, so nothing was verified: no good\n" in ended.out


@pytest.mark.parametrize(
    ("named", "answered"),
    [
        ([], '[{"id": number, "status": text}, …]'),
        (["--answer", f"{PLANTED}:numbered"], "what --answer returned"),
    ],
)
async def test_an_answer_that_does_not_fit_is_told_at_once(named: list[str], answered: str) -> None:
    ended = await run_flow("verify", f"{PLANTED}:Picky", "--messages", "5", *named)

    assert ended.code == 1
    why = (
        f"the double of the target answered a POST with {answered}, and then came: the answer cannot be read"
    )
    assert f"wrong: nothing was delivered, so nothing was verified: {why}. If the pipeline" in ended.out
    assert "let --answer MODULE:FUNCTION give it: until then its own mistakes stay hidden\n" in ended.out
    assert "seed 2" not in ended.out
    assert "twice:" not in ended.out
    assert "4711" not in ended.out


async def test_with_the_answer_that_it_expects_the_same_pipeline_passes() -> None:
    ended = await run_flow("verify", f"{PLANTED}:Picky", "--schedules", "2", "--answer", f"{PLANTED}:nobody")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(f"{ARRIVED}\n")


async def test_what_never_ends_is_ended_and_is_wrong() -> None:
    ended = await run_flow("verify", f"{PLANTED}:Down", "--messages", "5")

    assert ended.code == 1
    why = "not settled when time was up: the pipeline waited for a target that it took for unavailable"
    assert f"WRONG: {why}: 6 (" in ended.out
    assert "seed 2" not in ended.out  # the other schedules would end in the same way


async def test_what_cannot_be_seen_is_said() -> None:
    ended = await run_flow("verify", f"{PLANTED}:Blind", "--schedules", "1")

    assert ended.code == 0
    why = "because no setting of the pipeline is the http URL of its target"
    assert f"not checked: what reached the target, {why}\n" in ended.out
    assert ended.out.endswith(f"{SETTLED}\n")


async def test_own_bodies_and_own_answers(tmp_path: Path) -> None:
    file = tmp_path / "bodies.jsonl"
    file.write_text("".join(json.dumps({"number": f"number-{count}"}) + "\n" for count in range(12)))
    named = ["--bodies", str(file), "--answer", f"{PLANTED}:accepted", "--schedules", "1"]

    ended = await run_flow("verify", f"{PLANTED}:OwnType", *named)
    few = await run_flow("verify", f"{PLANTED}:OwnType", *named, "--messages", "3")
    unread = await run_flow("verify", f"{PLANTED}:OwnType", *named[:2], "--schedules", "1", "--messages", "2")

    assert ended.out.endswith(f"{ARRIVED}\n")
    assert "seed 1: 12 messages: 12 delivered\n" in ended.out
    assert "seed 1: 3 messages: 3 delivered\n" in few.out
    assert unread.code == 1  # the usual answer is not what this pipeline reads


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            [f"{PLANTED}:OwnType"],
            78,
            "flow makes no examples: give some with --bodies",
        ),
        (
            [f"{PLANTED}:Right", "--target-setting", "TARGET_ULR"],
            78,
            "got TARGET_ULR; did you mean TARGET_URL",
        ),
        ([f"{PLANTED}:Right", "--answer", "json:nothing"], 78, "--answer must be MODULE:FUNCTION"),
        ([f"{PLANTED}:Right", "--answer", f"{PLANTED}:unwritable"], 78, "--answer failed: TypeError"),
        ([f"{PLANTED}:Right", "--answer", f"{PLANTED}:forgetful"], 78, "KeyError in forgetful (planted.py:"),
        ([f"{PLANTED}:Wrong"], 2, "tests.verify.planted has no Wrong"),
    ],
)
async def test_a_wrong_set_up_is_a_sentence(arguments: list[str], code: int, sentence: str) -> None:
    ended = await run_flow("verify", *arguments)

    assert ended.code == code
    assert sentence in ended.err
    assert ended.err.count("\n") == 1
