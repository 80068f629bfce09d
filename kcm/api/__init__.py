"""The Python interface for notebooks and services: a loaded cascade, a classifier, a router."""
