"""The loop: turns, promotion and rollback, a person's labels."""
