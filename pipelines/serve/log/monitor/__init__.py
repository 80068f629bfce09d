"""The monitor of a version: audits, the alarm of its certificate, and what each version has saved and lost."""
