"""How it runs on the device: bundle, sessions, schedulers, generation. Never torch."""
