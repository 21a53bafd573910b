"""A JetStream cluster on this machine, from nats-server as a wheel: to try it, and for tests."""
