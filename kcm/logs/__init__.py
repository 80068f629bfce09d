"""Logs of past LLM calls: read them, group them by prompt template, and find the templates that classify."""
