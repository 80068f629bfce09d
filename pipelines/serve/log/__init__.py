"""The decision log: its tables, its writers and its readers."""
