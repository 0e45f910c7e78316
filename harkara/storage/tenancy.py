"""What makes a table a tenant's, as SQL for migrations: nobody writes a policy, a grant or a composite key by hand.

Migrations that have run are not run again: what is changed here changes only tables that are made from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Who sees which rows. The worker's policies spell the column so that no index serves them (docs/decisions says why).
_POLICIES = (("tenant", "harkara_app", ""), ("batch", "harkara_worker", " || ''"))

#: Which rows the owner may see and delete: those of the tenant that its transaction erases (`app.erasing`).
ENDING = "tenant_id = (select current_setting('app.erasing', true))"


def secured(table: str, *, owner_reads: bool = False) -> list[str]:
    """Row-level security, forced on its owner too; `owner_reads` lets functions that run as the owner see all rows."""
    made = [f"alter table {table} enable row level security", f"alter table {table} force row level security"]
    if owner_reads:
        made.append(f"create policy owner on {table} to current_user using (true) with check (true)")
    return made


def of_tenants(table: str, *, is_parent: bool = False, grants: str = "select, insert, update, delete") -> list[str]:
    """The rows of `table` belong to tenants: by policy, by default and by key.

    `is_parent` makes the key that other tables' foreign keys refer to. `grants` is what the application may do at all.
    """
    made = [f"alter table {table} alter column tenant_id set default app.tenant()"]
    for name, role, spelt in _POLICIES:
        rule = f"tenant_id{spelt} = any ((select app.tenants())::text[])"
        made.append(f"create policy {name} on {table} to {role} using ({rule}) with check ({rule})")
    made.append(f"create policy ending on {table} to current_user using ({ENDING})")
    made.append(f"grant {grants} on {table} to harkara_app, harkara_worker")
    if is_parent:
        made.append(f"alter table {table} add constraint {table}_tenant_key unique (tenant_id, id)")
    made.append(f"alter table {table} add constraint {table}_tenant_fk foreign key (tenant_id) references tenants (id)")
    return made


def timed(table: str) -> str:
    """Statements that are written by hand leave the times to the database."""
    return f"alter table {table} alter column created_at set default now(), alter column updated_at set default now()"


def refers(child: str, column: str, parent: str, on_delete: str) -> str:
    """A foreign key inside one tenant: it can't point at another tenant's row."""
    return (
        f"alter table {child} add constraint {child}_{column}_fk foreign key (tenant_id, {column})"
        f" references {parent} (tenant_id, id) on delete {on_delete}"
    )


def tenant_table(table: str, *, is_parent: bool = False, owner_reads: bool = False) -> list[str]:
    """All that a new table of tenants needs, once Tortoise has made it."""
    return [timed(table), *secured(table, owner_reads=owner_reads), *of_tenants(table, is_parent=is_parent)]


def audited(
    table: str, entity: str, *, masked: Sequence[str] = (), key: str = "id", tenant: str = "tenant_id"
) -> list[str]:
    """Whatever people change in this table is noted in the audit log, as changes of an `entity` named by column `key`.

    `masked` columns are secrets: that they changed is noted, not what they are. `tenant` is the column that says whose
    row it is; empty for rows of nobody's, which are noted for the tenant of the transaction. Writes of actors, whose
    transactions don't say who acts, cost nothing.
    """
    rows = {
        "insert": "new table as fresh",
        "update": "old table as gone new table as fresh",
        "delete": "old table as gone",
    }
    arguments = ", ".join(f"'{argument}'" for argument in (entity, key, tenant, *masked))
    return [
        f"create trigger audited_{event} after {event} on {table} referencing {named} for each statement"
        f" when (current_setting('app.actor', true) <> '') execute function app.audit({arguments})"
        for event, named in rows.items()
    ]
