-- What the rivals send from: the columns of ours that a message needs, with the two indexes that its lists need.
create schema rivals;

create table rivals.contacts (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    phone text not null unique,
    attributes jsonb not null,
    opted_in_at timestamptz not null
);

create table rivals.steps (
    id uuid primary key,
    campaign_id uuid not null,
    position int not null,
    body text not null,
    next_id uuid,
    next_after_hours int,
    unique (campaign_id, position)
);

create table rivals.progress (
    id uuid primary key default gen_random_uuid(),
    campaign_id uuid not null,
    contact_id uuid not null,
    status text not null default 'active',
    current_step int not null default 0,
    messages_sent int not null default 0,
    next_step_id uuid,
    next_step_at timestamptz,
    last_step_at timestamptz,
    unique (contact_id, campaign_id)
);
create index on rivals.progress (next_step_at) where status = 'active';

create table rivals.messages (
    id uuid primary key,
    contact_id uuid not null,
    campaign_id uuid not null,
    progress_id uuid not null,
    step int not null,
    phone text not null,
    content jsonb not null,
    status text not null,
    wamid text not null,
    due_at timestamptz not null,
    sent_at timestamptz not null
);
create index on rivals.messages (contact_id);
create index on rivals.messages (wamid);
