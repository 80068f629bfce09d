"""Records that several processes may write, and what they are used for: leases, journals, the ledger of looks."""
