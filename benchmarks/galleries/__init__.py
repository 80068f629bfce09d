"""Retrieval as a cascade: galleries as outcome tables, the search for a policy, and its quality."""
