"""Answers of a bundle to a file, and the reasons of single ones."""
