"""What the gate judges by, as arithmetic: without clock, database or network, for actors and the front door alike."""
