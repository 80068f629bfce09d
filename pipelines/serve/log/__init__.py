"""The decision log: its tables, what is written into it, and what is read from it."""
