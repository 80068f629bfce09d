"""The log: each answered item with its caller and version, audits, true labels, and the monitor over them."""
