"""Certificates of thresholds, and monitoring of deployed ones."""
