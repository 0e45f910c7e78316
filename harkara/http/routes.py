"""The one route table. Everything that is known about a route is said here, as data."""

from __future__ import annotations

from typing import Any

from harkara.http import (
    api_keys,
    audit,
    auth,
    campaigns,
    contact_export,
    contact_import,
    contact_merge,
    contacts,
    conversations,
    conversing,
    dead_letters,
    docs,
    dry_run,
    enrollments,
    feed,
    funnel,
    health,
    import_jobs,
    invoices,
    leads,
    me,
    media,
    message_list,
    messages,
    metrics,
    notes,
    previews,
    segments,
    sender_sessions,
    sender_stats,
    senders,
    steps,
    templates,
    tenant,
    usage,
    users,
    versions,
    webhooks,
)
from harkara.http.access import ACCOUNT, PUBLIC, Public, reads, writes
from harkara.http.feed_protocol import protocol
from harkara.http.route import PREFIX, Route, route
from harkara.schemas.api import Accepted, ContactHeld, ImportAccepted, Outcome

#: A JSON document a line.
LINES = "application/jsonl"

HEALTH = (
    Route(
        method="GET",
        path="/healthz",
        handler=health.healthz,
        access=PUBLIC,
        summary="The process is alive",
        returns=dict[str, str],
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        access=PUBLIC,
        summary="All servers behind it answer",
        returns=dict[str, str],
        raises=(503,),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics.show,
        access=PUBLIC,
        summary="Figures of this process, for Prometheus",
        returns=str,
        produces=("text/plain",),
    ),
)

DOCS = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=docs.openapi,
        access=PUBLIC,
        summary="This description: OpenAPI 3.1",
        returns=dict[str, Any],
        also={304: None},
    ),
    Route(
        method="GET",
        path="/docs",
        handler=docs.page,
        access=PUBLIC,
        summary="Swagger UI, to read and to try the API",
        produces=("text/html",),
    ),
    Route(
        method="GET",
        path="/docs/{version}/{file}",
        handler=docs.asset,
        access=PUBLIC,
        summary="A file that Swagger UI needs",
        produces=("text/javascript", "text/css", "image/png"),
        also={304: None},
        raises=(404,),
    ),
)

AUTH = (
    route("POST", "/auth/signup", auth.signup, PUBLIC, check=auth.check_signup, status=201, raises=(409,)),
    route("POST", "/auth/login", auth.login, PUBLIC, raises=(401,)),
    route("POST", "/auth/refresh", auth.refresh, PUBLIC, raises=(401,)),
    route("POST", "/auth/logout", auth.logout, PUBLIC, status=204, raises=(401,)),
    route("GET", "/auth/me", me.show, ACCOUNT),
    route("PATCH", "/auth/me", me.change, ACCOUNT, check=me.check_changes, raises=(403,)),
)

TENANT = (
    route("GET", "/tenant", tenant.show, reads("tenant")),
    route("PATCH", "/tenant", tenant.change, writes("tenant", "admin"), check=tenant.check_changes),
    route("GET", "/users", users.index, reads("tenant", "agent")),
    route("POST", "/users", users.create, writes("tenant", "admin"), check=users.check_new, status=201),
    route("PATCH", "/users/{user_id}", users.change, writes("tenant", "admin")),
    route("DELETE", "/users/{user_id}", users.remove, writes("tenant", "admin"), status=204),
    route("GET", "/api-keys", api_keys.index, reads("tenant", "admin")),
    route("POST", "/api-keys", api_keys.create, writes("tenant", "admin"), check=api_keys.check_new, status=201),
    route("DELETE", "/api-keys/{key_id}", api_keys.revoke, writes("tenant", "admin"), status=204),
    route("GET", "/usage", usage.index, reads("tenant")),
)

SENDERS = (
    route("GET", "/senders", senders.index, reads("senders")),
    route(
        "POST",
        "/senders",
        senders.create,
        writes("senders", "admin"),
        check=senders.check_new,
        status=201,
        raises=(502,),
    ),
    route("GET", "/senders/{sender_id}", senders.show, reads("senders")),
    route(
        "PATCH",
        "/senders/{sender_id}",
        senders.change,
        writes("senders", "admin"),
        check=senders.check_changes,
        raises=(409,),
    ),
    route("POST", "/senders/{sender_id}/resume", senders.resume, writes("senders", "admin"), raises=(409,)),
    route("GET", "/senders/{sender_id}/templates", templates.index, reads("senders")),
    route(
        "POST",
        "/senders/{sender_id}/templates/sync",
        templates.sync,
        writes("senders", "admin"),
        status=202,
    ),
    route("DELETE", "/senders/{sender_id}", senders.delete, writes("senders", "admin"), status=204),
    route("GET", "/senders/{sender_id}/stats", sender_stats.show, reads("senders")),
    route("GET", "/senders/{sender_id}/session", sender_sessions.show, reads("senders"), raises=(409, 502)),
    *(
        route("POST", f"/senders/{{sender_id}}/session/{verb}", handler, writes("senders", "admin"), raises=(502,))
        for verb, handler in (
            ("start", sender_sessions.start),
            ("restart", sender_sessions.restart),
            ("logout", sender_sessions.logout),
        )
    ),
    route(
        "GET",
        "/senders/{sender_id}/qr",
        sender_sessions.qr,
        reads("senders", "admin"),
        returns=str,
        produces=("image/png", "text/plain"),
        raises=(409, 502),
    ),
)

CONTACTS = (
    route("GET", "/contacts", contacts.index, reads("contacts")),
    route("POST", "/contacts", contacts.create, writes("contacts"), check=contacts.check_new, status=201),
    route(
        "POST",
        "/contacts/import",
        contact_import.import_csv,
        writes("contacts"),
        body_limit=contact_import.LIMIT,
        accepts=("text/csv", "multipart/form-data"),
        also={202: ImportAccepted},
    ),
    route("GET", "/contacts/imports", import_jobs.index, reads("contacts")),
    route("GET", "/contacts/imports/{import_id}", import_jobs.show, reads("contacts")),
    route("DELETE", "/contacts/imports/{import_id}", import_jobs.cancel, writes("contacts"), status=204),
    route("GET", "/contacts/imports/{import_id}/errors", import_jobs.errors, reads("contacts")),
    route("GET", "/contacts/{contact_id}", contacts.show, reads("contacts"), raises=(410,)),
    route(
        "PATCH",
        "/contacts/{contact_id}",
        contacts.change,
        writes("contacts"),
        check=contacts.check_changes,
        raises=(410,),
    ),
    route(
        "DELETE",
        "/contacts/{contact_id}",
        contacts.delete,
        writes("contacts"),
        status=204,
        also={200: Outcome, 202: Accepted},
        raises=(409, 410),
    ),
    route("POST", "/contacts/{contact_id}/merge", contact_merge.merge, writes("contacts"), raises=(409, 410)),
    route(
        "GET", "/contacts/export", contact_export.export, reads("contacts"), produces=("text/csv", LINES), returns=str
    ),
    route(
        "GET",
        "/contacts/{contact_id}/export",
        contact_export.document,
        reads("contacts"),
        returns=ContactHeld,
        raises=(410,),
    ),
    route("GET", "/contacts/{contact_id}/phone-numbers", contacts.phone_numbers, reads("contacts"), raises=(410,)),
    route(
        "POST",
        "/contacts/{contact_id}/phone-numbers",
        contacts.add_phone_number,
        writes("contacts"),
        check=contacts.check_phone,
        status=201,
        raises=(410,),
    ),
    route(
        "PATCH",
        "/contacts/{contact_id}/phone-numbers/{phone_id}",
        contacts.change_phone_number,
        writes("contacts"),
        raises=(410,),
    ),
    route(
        "DELETE",
        "/contacts/{contact_id}/phone-numbers/{phone_id}",
        contacts.delete_phone_number,
        writes("contacts"),
        status=204,
        raises=(410,),
    ),
)

LEADS = (
    route("GET", "/leads", leads.index, reads("contacts")),
    route("POST", "/leads", leads.create, writes("contacts"), status=201),
    route("GET", "/leads/{lead_id}", leads.show, reads("contacts")),
    route("PATCH", "/leads/{lead_id}", leads.change, writes("contacts")),
    route("GET", "/leads/{lead_id}/history", leads.history, reads("contacts")),
)

INVOICES = (
    route("GET", "/invoices", invoices.index, reads("invoices")),
    route(
        "POST",
        "/invoices",
        invoices.create,
        writes("invoices"),
        check=invoices.check_new,
        status=201,
    ),
    route("GET", "/invoices/{invoice_id}", invoices.show, reads("invoices")),
    route("PATCH", "/invoices/{invoice_id}", invoices.change, writes("invoices"), check=invoices.check_changes),
    route("POST", "/invoices/{invoice_id}/pay", invoices.pay, writes("invoices"), check=invoices.check_payment),
    route("POST", "/invoices/{invoice_id}/void", invoices.void, writes("invoices")),
)

CAMPAIGNS = (
    route("GET", "/campaigns", campaigns.index, reads("campaigns")),
    route("POST", "/campaigns", campaigns.create, writes("campaigns", "admin"), check=campaigns.check_new, status=201),
    route("GET", "/campaigns/{campaign_id}", campaigns.show, reads("campaigns")),
    route(
        "PATCH",
        "/campaigns/{campaign_id}",
        campaigns.change,
        writes("campaigns", "admin"),
        check=campaigns.check_changes,
    ),
    route("DELETE", "/campaigns/{campaign_id}", campaigns.delete, writes("campaigns", "admin"), status=204),
    route("GET", "/campaigns/{campaign_id}/steps", steps.index, reads("campaigns")),
    route(
        "POST",
        "/campaigns/{campaign_id}/steps",
        steps.create,
        writes("campaigns", "admin"),
        check=steps.check_new,
        status=201,
    ),
    route(
        "PATCH",
        "/campaigns/{campaign_id}/steps/{step_id}",
        steps.change,
        writes("campaigns", "admin"),
        check=steps.check_changes,
    ),
    route("DELETE", "/campaigns/{campaign_id}/steps/{step_id}", steps.delete, writes("campaigns", "admin"), status=204),
    route("POST", "/campaigns/{campaign_id}/activate", campaigns.activate, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/pause", campaigns.pause, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/resume", campaigns.resume, writes("campaigns", "admin")),
    route("POST", "/campaigns/{campaign_id}/archive", campaigns.archive, writes("campaigns", "admin")),
    route("GET", "/campaigns/{campaign_id}/funnel", funnel.show, reads("campaigns")),
    route("POST", "/campaigns/{campaign_id}/dry-run", dry_run.run, writes("campaigns"), check=dry_run.check),
    route("POST", "/campaigns/{campaign_id}/steps/{step_id}/preview", previews.preview, writes("campaigns")),
    route(
        "POST",
        "/campaigns/{campaign_id}/steps/{step_id}/test",
        previews.test,
        writes("campaigns", "admin"),
        check=previews.check_test,
        status=202,
    ),
    route("GET", "/campaigns/{campaign_id}/versions", versions.index, reads("campaigns")),
    route(
        "DELETE",
        "/campaigns/{campaign_id}/versions/{version_id}",
        versions.discard,
        writes("campaigns", "admin"),
        status=204,
    ),
    route(
        "POST",
        "/campaigns/{campaign_id}/versions/{version_id}/move",
        versions.move,
        writes("campaigns", "admin"),
        status=202,
    ),
    route("GET", "/campaigns/{campaign_id}/enrollments", enrollments.index, reads("campaigns")),
    route(
        "POST",
        "/campaigns/{campaign_id}/enroll",
        enrollments.enroll_many,
        writes("campaigns"),
        check=enrollments.check_meant,
        status=202,
    ),
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
    route("POST", "/contacts/{contact_id}/campaign/{campaign_id}/pause", enrollments.pause, writes("campaigns")),
    route("POST", "/contacts/{contact_id}/campaign/{campaign_id}/resume", enrollments.resume, writes("campaigns")),
    route(
        "POST",
        "/contacts/{contact_id}/campaign/{campaign_id}/goal",
        enrollments.reach_goal,
        writes("campaigns"),
        status=202,
    ),
)

SEGMENTS = (
    route("GET", "/segments", segments.index, reads("contacts")),
    route("POST", "/segments", segments.create, writes("contacts"), check=segments.check, status=201),
    route("GET", "/segments/{segment_id}", segments.show, reads("contacts")),
    route("PATCH", "/segments/{segment_id}", segments.change, writes("contacts"), check=segments.check),
    route("DELETE", "/segments/{segment_id}", segments.delete, writes("contacts"), status=204),
    route("GET", "/segments/{segment_id}/contacts", segments.contacts, reads("contacts")),
    route("GET", "/segments/{segment_id}/count", segments.count, reads("contacts")),
)

MESSAGES = (
    route("POST", "/messages", messages.send, writes("messages"), check=messages.check_new, status=202),
    route("GET", "/messages", message_list.index, reads("messages")),
    route("GET", "/messages/{message_id}", message_list.show, reads("messages")),
    route("POST", "/messages/{message_id}/cancel", messages.cancel, writes("messages"), status=202),
    route("GET", "/conversations", conversations.index, reads("conversations")),
    route("GET", "/conversations/{conversation_id}", conversations.show, reads("conversations")),
    route("GET", "/conversations/{conversation_id}/messages", conversations.messages, reads("conversations")),
    route(
        "POST",
        "/conversations/{conversation_id}/reply",
        conversing.reply,
        writes("conversations"),
        check=messages.check_reply,
        status=202,
    ),
    route("POST", "/conversations/{conversation_id}/assign", conversing.assign, writes("conversations")),
    route("POST", "/conversations/{conversation_id}/close", conversing.close, writes("conversations")),
    route("POST", "/conversations/{conversation_id}/reopen", conversing.reopen, writes("conversations")),
    route("POST", "/conversations/{conversation_id}/read", conversing.read, writes("conversations"), status=202),
    route("GET", "/conversations/{conversation_id}/notes", notes.index, reads("conversations")),
    route("POST", "/conversations/{conversation_id}/notes", notes.create, writes("conversations"), status=201),
    route(
        "GET",
        "/media/{media_id}",
        media.show,
        reads("conversations"),
        raises=(409, 410),
        # And whatever else somebody sends.
        produces=("application/octet-stream", "image/jpeg", "image/png", "audio/ogg", "video/mp4", "application/pdf"),
        returns=bytes,
    ),
    route("GET", "/replies", conversations.replies, reads("conversations")),
)

AUDIT = (route("GET", "/audit", audit.index, reads("audit", "admin")),)

DEAD_LETTERS = (
    route("GET", "/dead-letters", dead_letters.index, reads("messages", "admin")),
    route("POST", "/dead-letters/{letter_id}/replay", dead_letters.replay, writes("messages", "admin"), status=202),
    route("DELETE", "/dead-letters/{letter_id}", dead_letters.drop, writes("messages", "admin"), status=204),
)

FEED = (
    Route(
        method="GET",
        path=f"{PREFIX}/feed",
        handler=feed.open_feed,
        access=Public(otherwise=feed.ACCESS),  # the handler takes a ticket, or the headers that every route takes
        summary="This tenant's events as they happen, over a WebSocket",
        description=protocol(),
        query=feed.Opening,
        status=101,
        raises=(426,),
        produces=(),
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
        query=webhooks.Challenge,
        open_query=True,
        returns=str,
        produces=("text/plain",),
        raises=(400, 403),
    ),
    Route(
        method="POST",
        path=f"{PREFIX}/webhooks/whatsapp/{{sender_id}}",
        handler=webhooks.receive_whatsapp,
        access=PUBLIC,  # the signature tells whom to trust
        body_limit=webhooks.BODY_LIMIT,
        summary="The Cloud API reports statuses and messages",
        open_query=True,
        accepts=("application/json",),
        returns=dict[str, str],
        raises=(401,),
        repeatable=False,  # whoever sends webhooks sends no such header, and one that comes twice does no harm
    ),
    *(
        Route(
            method="POST",
            path=f"{PREFIX}/webhooks/{name}/{{sender_id}}",
            handler=handler,
            access=PUBLIC,  # what only the gateway was told tells whom to trust
            body_limit=webhooks.BODY_LIMIT,
            summary=f"{title} reports statuses, messages and how the phone is linked",
            open_query=True,
            accepts=("application/json",),
            returns=dict[str, str],
            raises=(401,),
            repeatable=False,
        )
        for name, title, handler in (
            ("evolution", "Evolution API", webhooks.receive_evolution),
            ("waha", "WAHA", webhooks.receive_waha),
        )
    ),
)

ROUTES: tuple[Route, ...] = (
    *HEALTH,
    *DOCS,
    *AUTH,
    *TENANT,
    *SENDERS,
    *CONTACTS,
    *LEADS,
    *INVOICES,
    *CAMPAIGNS,
    *SEGMENTS,
    *MESSAGES,
    *AUDIT,
    *DEAD_LETTERS,
    *FEED,
    *WEBHOOKS,
)
