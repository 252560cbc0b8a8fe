"""What computes: the engine, and what it runs."""
