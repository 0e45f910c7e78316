"""A contact who is enrolled in a campaign, as rows; `from enrolled import enrolled`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from harkara.ids import uuid7
from harkara.schemas.work import Send
from harkara.storage.models import (
    Campaign,
    CampaignStep,
    CampaignVersion,
    Contact,
    ContactCampaignProgress,
    Sender,
)
from harkara.storage.storage import Storage


@dataclass(frozen=True)
class Enrolled:
    """The ids of an enrolment whose only step is due."""

    tenant: str
    sender: UUID
    campaign: UUID
    contact: UUID
    step: UUID
    id: UUID
    message: UUID

    def work(self) -> Send:
        """What the ticker publishes for it."""
        return Send(
            message_id=str(self.message),
            sender_id=str(self.sender),
            lane="marketing",
            contact_id=str(self.contact),
            to="+919876543210",
            due_at=datetime.now(UTC),
            enrollment_id=str(self.id),
            campaign_id=str(self.campaign),
            step_id=str(self.step),
            step=0,
        )

    async def row(self, storage: Storage) -> ContactCampaignProgress:
        """The enrolment as it is now."""
        async with storage.tenant(self.tenant):
            return await ContactCampaignProgress.get(id=self.id)


async def enrolled(storage: Storage, tenant: str, *, campaign_status: str = "active") -> Enrolled:
    """Make one."""
    made = Enrolled(tenant, uuid7(), uuid7(), uuid7(), uuid7(), uuid7(), uuid7())
    version, due = uuid7(), datetime.now(UTC) - timedelta(seconds=1)
    async with storage.tenant(tenant):
        await Sender.create(
            id=made.sender, name="Shop", provider="sandbox", phone_number_id="1", verify_token="t", window="ignore"
        )
        await Contact.create(id=made.contact, name="Asha", phone="+919876543210", opted_in_at=due)
        await Campaign.create(
            id=made.campaign,
            name="Welcome",
            type="drip",
            sender_id=made.sender,
            status=campaign_status,
            version_id=version,
        )
        await CampaignVersion.create(id=version, campaign_id=made.campaign, number=1, frozen_at=due)
        await CampaignStep.create(
            id=made.step,
            campaign_id=made.campaign,
            version_id=version,
            position=0,
            name="hello",
            delay_hours=0,
            content={"body": "Hello"},
        )
        await ContactCampaignProgress.create(
            id=made.id,
            campaign_id=made.campaign,
            version_id=version,
            contact_id=made.contact,
            started_at=due,
            next_step_id=made.step,
            next_message_id=made.message,
            next_step_scheduled_at=due,
            next_claim_at=due,
        )
    return made
