"""Prompt templates: find the text to classify in a request, and the label in a reply."""
