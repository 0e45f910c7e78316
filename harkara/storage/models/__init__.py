"""The tables as Tortoise models. Composite keys, policies and partitions are in the migrations: it can't say them.

Several files, also because Tortoise reads the whole file of each model when it is loaded.
"""

from __future__ import annotations

from harkara.storage.models.accounts import (
    ApiKey,
    AuditEntry,
    CategoryUsage,
    IdempotencyKey,
    MonthlyUsage,
    RefreshToken,
    Tenant,
    TenantUser,
    User,
)
from harkara.storage.models.campaigns import Campaign, CampaignStep, CampaignVersion, ContactCampaignProgress
from harkara.storage.models.contacts import Contact, ContactHold, ContactMerge, Lead, LeadChange, PhoneNumber, Segment
from harkara.storage.models.imports import Import, ImportChunk, ImportFault
from harkara.storage.models.invoices import Invoice
from harkara.storage.models.messages import Conversation, ConversationNote, Media, Message, Reply
from harkara.storage.models.senders import Sender, Template

__all__ = [
    "ApiKey",
    "AuditEntry",
    "Campaign",
    "CampaignStep",
    "CampaignVersion",
    "CategoryUsage",
    "Contact",
    "ContactCampaignProgress",
    "ContactHold",
    "ContactMerge",
    "Conversation",
    "ConversationNote",
    "IdempotencyKey",
    "Import",
    "ImportChunk",
    "ImportFault",
    "Invoice",
    "Lead",
    "LeadChange",
    "Media",
    "Message",
    "MonthlyUsage",
    "PhoneNumber",
    "RefreshToken",
    "Reply",
    "Segment",
    "Sender",
    "Template",
    "Tenant",
    "TenantUser",
    "User",
]
