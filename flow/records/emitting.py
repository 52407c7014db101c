"""What is published of a case: the exchange, the routing key and the body for each stage."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from flow.records.cases import Case
from flow.records.outbox import Outgoing
from flow.topology import CONFIRM_EXCHANGE, DELIVER_EXCHANGE
from flow.transitions import Stage

ENCODER = msgspec.json.Encoder()


def emission(case: Case, stage: Stage) -> Outgoing:
    """Return the message that tells of *case* at *stage*.

    Only what flow's own mailer alone reads carries ids instead of the whole record: one message of the
    exchange `deliver` is copied to flow's queues and to the organisation's, so it must serve both.
    """
    exchange, key = route(case, stage)
    by_ids = stage == "supporter_confirm" and not case.custom_supporter_confirm
    body = ids(case, stage) if by_ids else action(case, stage)
    return Outgoing(exchange, key, ENCODER.encode(body), case.action_id, case.supporter_id)


def email_event(case: Case) -> Outgoing:
    """Return the `email_status` event of the supporter of *case*.

    It goes where deliveries of the organisation go, as something about a supporter.
    """
    _, key = route(case, "deliver")
    body = {
        "schema": "proca:event:2",
        "eventType": "email_status",
        "timestamp": moment(case.email_status_changed_at),
        **numbers(case),
        "action": deed(case),
        "supporter": {
            "contact": contact(case),
            "privacy": privacy(case),
            "personalInfo": personal_info(case),
        },
        **surroundings(case),
    }
    key = f"{key.rpartition('.')[0]}.supporter"
    return Outgoing(DELIVER_EXCHANGE, key, ENCODER.encode(body), case.action_id, case.supporter_id)


def route(case: Case, stage: Stage) -> tuple[str, str]:
    """Return exchange and routing key: `ORGANISATION.custom|system.supporter|action`.

    `custom`: somebody outside reads it from a queue of the organisation; `system`: flow's own pipelines do.
    """
    if stage == "supporter_confirm":
        exchange, custom, kind = CONFIRM_EXCHANGE, case.custom_supporter_confirm, "supporter"
    elif stage == "action_confirm":  # somebody moderates
        exchange, custom, kind = CONFIRM_EXCHANGE, True, "action"
    else:
        exchange, custom, kind = DELIVER_EXCHANGE, case.custom_delivery, "action"
    return exchange, f"{case.organisation_name}.{'custom' if custom else 'system'}.{kind}"


def ids(case: Case, stage: Stage) -> dict[str, Any]:
    """Return `proca:ids:1` about the supporter."""
    return {
        "schema": "proca:ids:1",
        "stage": stage,
        "supporterId": case.supporter_id,
        "actionId": case.action_id,
        "actionPageId": case.page_id,
        "orgId": case.organisation_id,
    }


def action(case: Case, stage: Stage) -> dict[str, Any]:
    """Return `proca:action:2`."""
    return {
        "schema": "proca:action:2",
        "stage": stage,
        **numbers(case),
        "action": deed(case) | ({} if case.donation is None else {"donation": case.donation}),
        **surroundings(case),
        "contact": contact(case),
        "personalInfo": personal_info(case),
        "privacy": privacy(case),
        "tracking": case.tracking,
    }


def deed(case: Case) -> dict[str, Any]:
    """Return the action without a donation; what is only tried out says so, also in news of the address."""
    return {
        "actionType": case.action_type,
        "createdAt": moment(case.created_at),
        "testing": case.testing,
        "customFields": case.custom_fields,
    }


def numbers(case: Case) -> dict[str, int]:
    """Return the ids that stand at the top of a message."""
    return {
        "actionId": case.action_id,
        "actionPageId": case.page_id,
        "campaignId": case.campaign_id,
        "orgId": case.organisation_id,
    }


def surroundings(case: Case) -> dict[str, Any]:
    """Return page, campaign and organisation."""
    return {
        "actionPage": {
            "name": case.page_name,
            "locale": case.locale,
            "thankYouTemplate": case.thank_you_template,
            "supporterConfirmTemplate": case.supporter_confirm_template,
        },
        "campaign": {
            "name": case.campaign_name,
            "title": case.campaign_title,
            "externalId": case.external_id,
            "contactSchema": case.contact_schema,
        },
        "org": {"name": case.organisation_name, "title": case.organisation_title},
    }


def contact(case: Case) -> dict[str, Any]:
    """Return the contact: without personal data if that is closed for the organisation, or erased."""
    known = {"contactRef": case.contact_ref, "dupeRank": case.dupe_rank, "area": case.area}
    if case.payload is None or case.nonce is not None:
        return known
    clear: dict[str, Any] = {"email": case.email, "firstName": case.first_name} | msgspec.json.decode(
        case.payload
    )
    return clear | {name: value for name, value in known.items() if value is not None or name not in clear}


def personal_info(case: Case) -> dict[str, Any] | None:
    """Return the personal data that is closed for the organisation; None: it is not."""
    if case.payload is None or case.nonce is None:
        return None
    return {
        "payload": case.payload,
        "nonce": case.nonce,
        "encryptKey": {"id": None, "public": case.encrypt_key},
        "signKey": {"id": None, "public": case.sign_key},
    }


def privacy(case: Case) -> dict[str, Any]:
    """Return what the supporter agreed to, and what is known of the address."""
    return {
        "withConsent": case.with_consent,
        "optIn": case.opt_in,
        "givenAt": moment(case.given_at),
        "emailStatus": case.email_status,
        "emailStatusChanged": moment(case.email_status_changed_at),
    }


def moment(at: datetime | None) -> str | None:
    """Return *at* in ISO 8601, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
