"""Prompts of a large model, and parsing of its replies."""
