"""What is about an invoice is found by it, and an invoice by what another system calls it."""

from tortoise import migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    "create index messages_invoice on messages (tenant_id, invoice_id, id) where invoice_id is not null",
    "create index invoices_external on invoices (tenant_id, external_id, id) where external_id is not null",
)


class Migration(migrations.Migration):
    """Indexes around invoices."""

    dependencies = [("harkara", "0019_outbox_past_the_full")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
