"""What operators see and do: JetStream, the servers behind it, dead letters. Started as `harkara ops`."""
