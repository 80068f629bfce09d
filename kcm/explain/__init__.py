"""Why the small side decided as it did."""
