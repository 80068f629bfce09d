"""The log: what was answered to whom, by which version, and what audits and true labels say of it."""
