"""`harkara ops trace`: all that happened to one thing, where it is now and what it waits for."""
