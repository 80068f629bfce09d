"""The cascade: outcome table, gate scores, policy, frontier and search."""
