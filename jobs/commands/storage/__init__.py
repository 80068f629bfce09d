"""The upkeep of a storage."""
