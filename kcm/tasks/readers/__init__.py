"""Readers of sources: labelled rows from files, the hub and pairs of picture and text."""
