"""Records that several processes may write, and their uses: leases, journals, the ledger of looks."""
