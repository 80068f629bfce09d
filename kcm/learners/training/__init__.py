"""The trainer, its optimisers, and the train rows in the order of their steps."""
