"""The one route table. Everything that is known about a route is said here, as data."""

from __future__ import annotations

from harkara.http import (
    api_keys,
    auth,
    campaigns,
    contact_import,
    contacts,
    conversations,
    enrollments,
    feed,
    health,
    message_list,
    messages,
    senders,
    steps,
    tenant,
    webhooks,
)
from harkara.http.access import ACCOUNT, PUBLIC, reads, writes
from harkara.http.route import PREFIX, Route, route

HEALTH = (
    Route(method="GET", path="/healthz", handler=health.healthz, access=PUBLIC, summary="The process is alive"),
    Route(method="GET", path="/readyz", handler=health.readyz, access=PUBLIC, summary="All servers behind it answer"),
)

AUTH = (
    route("POST", "/auth/signup", auth.signup, PUBLIC, status=201),
    route("POST", "/auth/login", auth.login, PUBLIC),
    route("POST", "/auth/refresh", auth.refresh, PUBLIC),
    route("POST", "/auth/logout", auth.logout, PUBLIC, status=204),
    route("GET", "/auth/me", auth.me, ACCOUNT),
)

TENANT = (
    route("GET", "/tenant", tenant.show, reads("tenant")),
    route("PATCH", "/tenant", tenant.change, writes("tenant", "admin")),
    route("GET", "/api-keys", api_keys.index, reads("tenant", "admin")),
    route("POST", "/api-keys", api_keys.create, writes("tenant", "admin"), status=201),
    route("DELETE", "/api-keys/{key_id}", api_keys.revoke, writes("tenant", "admin"), status=204),
)

SENDERS = (
    route("GET", "/senders", senders.index, reads("senders")),
    route("POST", "/senders", senders.create, writes("senders", "admin"), status=201),
    route("GET", "/senders/{sender_id}", senders.show, reads("senders")),
    route("PATCH", "/senders/{sender_id}", senders.change, writes("senders", "admin")),
    route("DELETE", "/senders/{sender_id}", senders.delete, writes("senders", "admin"), status=204),
)

CONTACTS = (
    route("GET", "/contacts", contacts.index, reads("contacts")),
    route("POST", "/contacts", contacts.create, writes("contacts"), status=201),
    route("POST", "/contacts/import", contact_import.import_csv, writes("contacts"), body_limit=contact_import.LIMIT),
    route("GET", "/contacts/{contact_id}", contacts.show, reads("contacts")),
    route("PATCH", "/contacts/{contact_id}", contacts.change, writes("contacts")),
    route("DELETE", "/contacts/{contact_id}", contacts.delete, writes("contacts"), status=204),
    route("GET", "/contacts/{contact_id}/phone-numbers", contacts.phone_numbers, reads("contacts")),
    route("POST", "/contacts/{contact_id}/phone-numbers", contacts.add_phone_number, writes("contacts"), status=201),
)

CAMPAIGNS = (
    route("GET", "/campaigns", campaigns.index, reads("campaigns")),
    route("POST", "/campaigns", campaigns.create, writes("campaigns", "admin"), status=201),
    route("GET", "/campaigns/{campaign_id}", campaigns.show, reads("campaigns")),
    route("PATCH", "/campaigns/{campaign_id}", campaigns.change, writes("campaigns", "admin")),
    route("DELETE", "/campaigns/{campaign_id}", campaigns.delete, writes("campaigns", "admin"), status=204),
    route("GET", "/campaigns/{campaign_id}/steps", steps.index, reads("campaigns")),
    route("POST", "/campaigns/{campaign_id}/steps", steps.create, writes("campaigns", "admin"), status=201),
    route("PATCH", "/campaigns/{campaign_id}/steps/{step_id}", steps.change, writes("campaigns", "admin")),
    route("DELETE", "/campaigns/{campaign_id}/steps/{step_id}", steps.delete, writes("campaigns", "admin"), status=204),
    route("POST", "/campaigns/{campaign_id}/activate", campaigns.activate, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/pause", campaigns.pause, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/resume", campaigns.resume, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/archive", campaigns.archive, writes("campaigns", "admin")),
    route("GET", "/campaigns/{campaign_id}/funnel", campaigns.funnel, reads("campaigns")),
    route("GET", "/campaigns/{campaign_id}/enrollments", enrollments.index, reads("campaigns")),
    route("POST", "/campaigns/{campaign_id}/enroll", enrollments.enroll_many, writes("campaigns"), status=202),
    route(
        "POST",
        "/contacts/{contact_id}/campaign/{campaign_id}/enroll",
        enrollments.enroll,
        writes("campaigns"),
        status=202,
    ),
    route(
        "POST", "/contacts/{contact_id}/campaign/{campaign_id}/stop", enrollments.stop, writes("campaigns"), status=202
    ),
)

MESSAGES = (
    route("POST", "/messages", messages.send, writes("messages"), status=202),
    route("GET", "/messages", message_list.index, reads("messages")),
    route("GET", "/messages/{message_id}", message_list.show, reads("messages")),
    route("POST", "/messages/{message_id}/cancel", messages.cancel, writes("messages"), status=202),
    route("GET", "/conversations", conversations.index, reads("conversations")),
    route("GET", "/conversations/{conversation_id}/messages", conversations.messages, reads("conversations")),
    route("GET", "/replies", conversations.replies, reads("conversations")),
)

FEED = (
    Route(
        method="GET",
        path=f"{PREFIX}/feed",
        handler=feed.open_feed,
        access=PUBLIC,  # the handler takes a ticket, or the headers that every route takes
        summary="This tenant's events as they happen, over a WebSocket",
    ),
    Route(
        method="POST",
        path=f"{PREFIX}/feed/ticket",
        handler=feed.issue_ticket,
        access=feed.ACCESS,
        returns=feed.Ticket,
        status=201,
        summary="Opens the feed once, for browsers",
    ),
)

WEBHOOKS = (
    Route(
        method="GET",
        path=f"{PREFIX}/webhooks/whatsapp/{{sender_id}}",
        handler=webhooks.confirm_whatsapp,
        access=PUBLIC,  # the verify token tells whom to trust
        summary="The Cloud API makes sure that this address is ours",
    ),
    Route(
        method="POST",
        path=f"{PREFIX}/webhooks/whatsapp/{{sender_id}}",
        handler=webhooks.receive_whatsapp,
        access=PUBLIC,  # the signature tells whom to trust
        body_limit=webhooks.BODY_LIMIT,
        summary="The Cloud API reports statuses and messages",
    ),
)

ROUTES: tuple[Route, ...] = (
    *HEALTH,
    *AUTH,
    *TENANT,
    *SENDERS,
    *CONTACTS,
    *CAMPAIGNS,
    *MESSAGES,
    *FEED,
    *WEBHOOKS,
)
