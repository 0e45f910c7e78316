"""The embedded stack: nats-server, PostgreSQL and Valkey as children that live and die with this process."""
