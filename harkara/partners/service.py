"""Partners, served: what a front door does for them beside HTTP. Any number of front doors share the work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from harkara.bus.link import Link
from harkara.http.door import Door
from harkara.nkeys import AccountKey
from harkara.partners.admission import ASKED, QUEUE, Admission
from harkara.partners.intake import TAKEN, Intake
from harkara.partners.watch import Watch

#: How long the broker may take to answer at the start.
PATIENCE_S = 10.0


@asynccontextmanager
async def serving(door: Door) -> AsyncGenerator[None]:
    """Inside the block partners are let in and their commands are taken. Raises Unavailable.

    Commands come over a connection of their own: whoever floods it holds up nothing else.
    """
    settings, key = door.settings, AccountKey.of_seed(door.settings.nats_partners_seed)
    async with AsyncExitStack() as stack:
        asking = await Link.open(settings.nats_partners_url, None, "harkara partners", PATIENCE_S)
        stack.push_async_callback(asking.close)
        creds = settings.nats_creds or None
        commanding = await Link.open(settings.nats_url, creds, "harkara commands", PATIENCE_S)
        stack.push_async_callback(commanding.close)
        intake = Intake(door, commanding)
        watch = Watch(door, asking, intake)
        admission = Admission(door, asking, key, watch)
        for part in (intake, admission, watch):
            stack.push_async_callback(part.stop)
        stack.push_async_callback((await commanding.listen(TAKEN, intake.take, queue=QUEUE)).close)
        stack.push_async_callback((await asking.listen(ASKED, admission.take, queue=QUEUE)).close)
        await watch.start()
        door.access_changes.append(watch.heard)
        stack.callback(door.access_changes.remove, watch.heard)
        yield
