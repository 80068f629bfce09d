"""What several processes may write: small records, and what is made of them: leases, journals, the ledger of looks."""
