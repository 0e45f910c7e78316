"""Partners on NATS: who may connect, the commands they send, and when their connections end."""
