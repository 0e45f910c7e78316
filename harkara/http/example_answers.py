"""Examples of answers, where fields depend on each other: each is one that could be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harkara.http.feed import Ticket
from harkara.schemas import api, campaigns

ID = "01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07"
AT = "2026-01-31T09:30:00Z"
LATER = "2026-01-31T09:30:02Z"
PHONE = "+919876543210"
WAMID = "wamid.HBgMOTE5ODc2NTQzMjEwFQIAERgSQzA5"
MADE = {"created_at": AT, "updated_at": AT}

KEY = {
    "id": ID,
    "name": "shop backend",
    "hint": "hk_acme_f0oB",
    "scopes": ["contacts:read", "messages:write"],
    "expires_at": None,
    "last_used_at": LATER,
    "revoked_at": None,
    "created_at": AT,
}

SESSION = {"state": "scan_qr", "detail": None, "at": AT, "qr_url": f"/api/v1/senders/{ID}/qr"}

SENDER = {
    "id": ID,
    "name": "Shop",
    "provider": "cloud",
    "phone": PHONE,
    "phone_number_id": "106540352242922",
    "waba_id": "102290129340398",
    "mps": 80,
    "daily_limit": 1000,
    "portfolio_id": None,
    "pair_limit": None,
    "window": "enforce",
    "status": "active",
    "status_reason": None,
    "status_since": None,
    "held_until": None,
    "error_code": None,
    "why": None,
    "session": None,
    "webhook_url": f"https://harkara.example/api/v1/webhooks/whatsapp/{ID}",
    **MADE,
}

CONTACT = {
    "id": ID,
    "name": "Asha Rao",
    "phone": PHONE,
    "wa_user_id": None,
    "locale": "en-IN",
    "timezone": "Asia/Kolkata",
    "attributes": {"city": "Pune"},
    "tags": ["vip"],
    "consent": {"source": "website", "at": AT, "categories": ["marketing"]},
    "opted_out_at": None,
    "opted_out_reason": None,
    "opt_outs": [],
    "marketing_rests_until": None,
    **MADE,
}

ROW_ERROR = {"row": 40, "path": "phone", "message": "is not a phone number: it should look like +919876543210"}

COLUMNS = [
    {"title": "Name", "target": "name", "type": "string"},
    {"title": "Phone", "target": "phone", "type": "string"},
    {"title": "City", "target": "attributes.City", "type": "string"},
]

HINTS = ["other columns are attributes; in texts they are written just so, capitals too: {{ attributes.City }}"]

LEAD = {"id": ID, "contact_id": ID, "stage": "qualified", "score": 70, "source": "website", **MADE}

INVOICE = {
    "id": ID,
    "contact_id": ID,
    "number": "2026-0042",
    "amount": 123450,
    "currency": "INR",
    "due_at": "2026-02-15T18:30:00Z",
    "status": "open",
    "paid_at": None,
    "external_id": None,
    **MADE,
}

CAMPAIGN = {
    "id": ID,
    "name": "Welcome",
    "type": "drip",
    "status": "active",
    "status_reason": None,
    "held_back_by": None,
    "sender_id": ID,
    "version": 1,
    "draft_version": None,
    "stop_on_reply": True,
    "quiet_hours": {"start": "21:00", "end": "09:00"},
    "reentry": "never",
    "goal": None,
    "exit": None,
    "audience": None,
    "scheduled_at": None,
    "delivery": "at_most_once",
    "launched_at": None,
    "activated_at": AT,
    **MADE,
}

COUNTED = {"sent": 480, "delivered": 470, "read": 320, "failed": 4, "replied": 12, "opted_out": 2}
HELD_BACK = {"suppressed_by": {"opted_out": 2, "outside_window": 1}, "deferred_by": {"quiet_hours": 12}}
OF_STEP = {"due": 13, "queued": 12, "sending": 1, "suppressed": 3, "unknown": 0}

ENROLLMENT = {
    "id": ID,
    "campaign_id": ID,
    "version_id": ID,
    "contact_id": ID,
    "run": 1,
    "status": "active",
    "stopped_reason": None,
    "current_step": 1,
    "messages_sent": 1,
    "started_at": AT,
    "next_step_scheduled_at": "2026-02-01T09:30:00Z",
    "last_step_at": LATER,
    "finished_at": None,
    "goal_at": None,
    "invoice_id": None,
}

MESSAGE = {
    "id": ID,
    "status": "delivered",
    "reason": None,
    "error_code": None,
    "lane": "utility",
    "to": PHONE,
    "contact_id": ID,
    "sender_id": ID,
    "campaign_id": None,
    "enrollment_id": None,
    "step": None,
    "variant": None,
    "is_test": False,
    "content": {"body": "Hi Asha, your order is on its way."},
    "wamid": WAMID,
    "reply_to": None,
    "attempts": 1,
    "delivery": "at_least_once",
    "resent": False,
    "resend_at": None,
    "cause": ID,
    "due_at": AT,
    "created_at": AT,
    "sent_at": AT,
    "delivered_at": LATER,
    "read_at": None,
    "failed_at": None,
    "deferred_until": None,
    "invoice_id": None,
}

MEDIA = {
    "id": ID,
    "status": "stored",
    "reason": None,
    "mime_type": "image/jpeg",
    "size": 48213,
    "filename": None,
    "url": f"/api/v1/media/{ID}",
}

CONVERSATION = {
    "id": ID,
    "contact_id": ID,
    "contact_name": "Asha Rao",
    "contact_phone": PHONE,
    "sender_id": ID,
    "status": "open",
    "assigned_to": None,
    "last_inbound_at": AT,
    "last_activity_at": LATER,
    "read_at": LATER,
    "window_until": "2026-02-01T09:30:00Z",
    "closed_at": None,
    "created_at": AT,
}

CAME = {"type": "text", "text": "Thank you!"}
QUOTES = {"reply_to": ID, "reply_to_wamid": WAMID}
THANKS = {
    "id": WAMID,
    "from": PHONE.removeprefix("+"),
    "timestamp": "1769851800",
    "type": "text",
    "text": {"body": "Thank you!"},
}

#: By the type of an answer, or of a part of one.
ANSWERS: Mapping[Any, Any] = {
    Ticket: {"ticket": "yJmX3u0nq1bT5Yw8dVfEo2cRZ6hK9sLpA4gQxNiBvMs", "expires_in": 30, "seq": 4711},
    api.MemberMade: {
        "id": ID,
        "email": "ravi@acme.example",
        "name": "Ravi Iyer",
        "role": "agent",
        "is_active": True,
        "accepted_at": None,
        **MADE,
        "password": "t9Xq2vLmR8sYb4Kd",
    },
    api.Me: {
        "user": {"id": ID, "email": "asha@acme.example", "name": "Asha Rao"},
        "api_key_id": None,
        "tenant": {"id": "acme", "name": "Acme"},
        "role": "owner",
        "scopes": [],
        "tenants": [{"id": "acme", "name": "Acme", "role": "owner"}],
    },
    api.TenantShown: {
        "id": "acme",
        "name": "Acme",
        "plan": "standard",
        "timezone": "Asia/Kolkata",
        "default_region": "IN",
        "keywords": {"stop": ["bas"], "confirmations": {"stop": "You will hear no more from us."}},
        "quiet_hours": {"start": "21:00", "end": "09:00"},
        "frequency_caps": [{"max": 2, "per_hours": 24}],
        **MADE,
    },
    api.ApiKeyShown: KEY,
    api.ApiKeyMade: {**KEY, "last_used_at": None, "key": "hk_acme_f0oBarBazf0oBarBazf0oBarBazf0oBarBaz"},
    api.UsageShown: {
        "month": "2026-01",
        "messages": 12480,
        "included": None,
        "exhausted_at": None,
        "categories": [
            {"category": "marketing", "billable": True, "messages": 9200},
            {"category": "utility", "billable": False, "messages": 3280},
        ],
    },
    api.SessionShown: SESSION,
    api.SenderShown: SENDER,
    api.SenderMade: {
        **SENDER,
        "verify_token": "k3VbP0xWq7Zt",
    },
    api.SenderStats: {
        "hours": 24,
        "messages": 1250,
        "since": AT,
        "sent": {"count": 1250, "p50_s": 0.1, "p95_s": 0.4, "p99_s": 1.2},
        "delivered": {"count": 1240, "p50_s": 1.1, "p95_s": 3.8, "p99_s": 20.5},
        "read": {"count": 860, "p50_s": 95.0, "p95_s": 5400.0, "p99_s": 40000.0},
    },
    api.TemplateShown: {
        "id": ID,
        "sender_id": ID,
        "name": "order_update",
        "language": "en_US",
        "category": "utility",
        "status": "approved",
        "reason": None,
        "quality": "green",
        "components": [{"type": "BODY", "text": "Hi {{1}}, your order {{2}} is on its way."}],
        **MADE,
    },
    api.ContactShown: CONTACT,
    api.PhoneNumberShown: {"id": ID, "contact_id": ID, "phone": "+912228403221", "label": "office", "created_at": AT},
    api.RowError: ROW_ERROR,
    api.ImportAccepted: {"id": ID, "status": "accepted", "encoding": "utf-8", "delimiter": ",", "hints": HINTS},
    api.Imported: {
        "created": 498,
        "updated": 0,
        "duplicates": 1,
        "opted_out": 2,
        "errors": [ROW_ERROR],
        "encoding": "utf-8",
        "delimiter": ",",
        "errors_left_out": 0,
        "hints": HINTS,
    },
    api.ImportShown: {
        "id": ID,
        "status": "running",
        "filename": "contacts.csv",
        "encoding": "utf-8",
        "delimiter": ",",
        "columns": COLUMNS,
        "rows": 100000,
        "rows_done": 40000,
        "created": 39000,
        "updated": 900,
        "duplicates": 60,
        "opted_out": 3,
        "errors": 40,
        "created_at": AT,
        "finished_at": None,
        "hints": HINTS,
    },
    api.ContactHeld: {
        "contact": CONTACT,
        **{name: [] for name in api.ContactHeld.__struct_fields__ if name != "contact"},
        "leads": [LEAD],
    },
    api.LeadShown: LEAD,
    api.LeadChangeShown: {
        "id": ID,
        "at": AT,
        "user_id": ID,
        "api_key_id": None,
        "changes": {"before": {"stage": "new", "score": 0}, "after": {"stage": "qualified", "score": 70}},
    },
    api.InvoiceShown: INVOICE,
    api.CampaignShown: CAMPAIGN,
    api.CampaignActivated: {**CAMPAIGN, "running_on_earlier": 0, "warnings": []},
    api.StepShown: {
        "id": ID,
        "campaign_id": ID,
        "version": 1,
        "position": 1,
        "name": "Question",
        "delay_hours": 24.0,
        "body": "Hi {{ first_name }}, how do you like your {{ attributes.product | default('tea') }}?",
    },
    api.Funnel: {
        "campaign_id": ID,
        "version": 1,
        "enrolled": 500,
        "active": 484,
        "completed": 0,
        "stopped": 12,
        "failed": 4,
        "paused": 0,
        "goal": 0,
        "stopped_by": {"opt_out": 2, "reply": 10},
        "totals": {**COUNTED, "suppressed": 3, "unknown": 0, **HELD_BACK},
        "steps": [
            {"step": 0, "name": "Welcome", "delay_hours": 0.0, **COUNTED, **OF_STEP, **HELD_BACK, "variants": []}
        ],
    },
    campaigns.VersionShown: {
        "id": ID,
        "number": 1,
        "state": "current",
        "steps": 3,
        "enrolled": 500,
        "active": 488,
        "paused": 0,
        "completed": 0,
        "stopped": 12,
        "failed": 0,
        "frozen_at": AT,
        "created_at": AT,
    },
    campaigns.Preview: {
        "step_id": ID,
        "contact_id": ID,
        "variant": None,
        "content": {"body": "Hi Asha, how do you like your tea?"},
        "text": "Hi Asha, how do you like your tea?",
        "variables": [
            {"name": "attributes.product", "value": None, "source": "default"},
            {"name": "first_name", "value": "Asha", "source": "contact.name"},
        ],
        "faults": [],
    },
    campaigns.DryRun: {
        "campaign_id": ID,
        "version": 1,
        "at": AT,
        "audience": 500,
        "enrolled": 498,
        "tried": 498,
        "refused": {"opted_out": 2},
        "blockers": [],
        "warnings": [],
        "seconds_a_step": 6.225,
        "steps": [
            {
                "step": 0,
                "name": "Welcome",
                "delay_hours": 0.0,
                "at": AT,
                "contacts": 497,
                "faults": [{"path": "body", "message": "is too long: 4,120 characters, at most 4,096", "contacts": 1}],
            }
        ],
        "items": [
            {
                "contact_id": ID,
                "name": "Asha Rao",
                "reason": None,
                "messages": [
                    {
                        "step": 0,
                        "at": AT,
                        "variant": None,
                        "in_quiet_hours": False,
                        "deferred_until": None,
                        "fault": None,
                    }
                ],
            }
        ],
        "next": None,
    },
    campaigns.SegmentCount: {"contacts": 1250, "reachable": 980},
    api.EnrollmentShown: ENROLLMENT,
    api.BulkAccepted: {"id": ID, "status": "accepted", "count": 496, "refused": {"no_consent": 4}},
    api.MessageShown: MESSAGE,
    api.MessageStory: {
        **MESSAGE,
        "timeline": [
            {"at": AT, "status": "queued"},
            {"at": AT, "status": "sending"},
            {"at": AT, "status": "sent"},
            {"at": LATER, "status": "delivered"},
        ],
        "why": None,
        "pricing": {"billable": True, "model": "PMP", "type": "regular", "category": "utility", "origin": None},
    },
    api.MediaShown: MEDIA,
    api.ConversationShown: CONVERSATION,
    api.Said: {
        "id": ID,
        "direction": "in",
        "at": AT,
        **CAME,
        "content": THANKS,
        "status": None,
        "why": None,
        **QUOTES,
        "media": None,
    },
    api.ReplyShown: {
        "id": ID,
        "conversation_id": ID,
        "contact_id": ID,
        "sender_id": ID,
        **CAME,
        "payload": THANKS,
        "received_at": AT,
        **QUOTES,
        "media": None,
    },
    api.NoteShown: {
        "id": ID,
        "conversation_id": ID,
        "text": "She would like it gift-wrapped.",
        "user_id": ID,
        "api_key_id": None,
        "created_at": AT,
    },
    api.AuditShown: {
        "id": ID,
        "at": AT,
        "user_id": ID,
        "api_key_id": None,
        "action": "update",
        "entity": "contact",
        "entity_id": ID,
        "request_id": ID,
        "address": "203.0.113.7",
        "via": "PATCH /contacts/{contact_id}",
        "changes": {"before": {"tags": []}, "after": {"tags": ["vip"]}},
    },
    api.DeadLetterShown: {
        "id": ID,
        "at": AT,
        "actor": "dispatcher",
        "reason": "the database does not answer",
        "attempts": 47,
        "subject": "t.acme.cmd.message.send",
        "message_id": f"acme.{ID}",
        "cause": ID,
        "body": {"sender_id": ID, "content": {"body": "Hi Asha, your order is on its way."}, "to": PHONE},
        "body_base64": None,
        "body_begins": None,
    },
}

#: What is otherwise than in other answers of the type, by the request; all of it where the type says nothing.
MADE_BY: Mapping[str, Mapping[str, Any]] = {
    "GET /healthz": {"status": "ok"},
    "GET /readyz": {"status": "ready"},
    "POST /campaigns": {"status": "draft", "activated_at": None},
    "POST /campaigns/{campaign_id}/pause": {"status": "paused"},
    "POST /campaigns/{campaign_id}/archive": {"status": "archived"},
    "POST /contacts/{contact_id}/campaign/{campaign_id}/pause": {"status": "paused"},
    "POST /conversations/{conversation_id}/assign": {"assigned_to": ID},
    "POST /conversations/{conversation_id}/close": {"status": "closed", "closed_at": LATER},
    "POST /invoices/{invoice_id}/pay": {"status": "paid", "paid_at": LATER, "updated_at": LATER},
    "POST /invoices/{invoice_id}/void": {"status": "void", "updated_at": LATER},
    "POST /leads": {"stage": "new", "score": 0},
    "POST /senders/{sender_id}/session/start": {"state": "starting", "qr_url": None},
    "POST /senders/{sender_id}/session/restart": {"state": "starting", "qr_url": None},
    "POST /senders/{sender_id}/session/logout": {"state": "stopped", "qr_url": None},
    "GET /openapi.json": {"openapi": "3.1.1", "info": {"title": "Harkara", "version": "0.1.0"}},
    **{
        f"POST /webhooks/{source}/{{sender_id}}": {"status": "accepted"} for source in ("whatsapp", "evolution", "waha")
    },
}
