"""Rows on Ray Data."""
