"""Rows of tables through models, on Ray Data."""
