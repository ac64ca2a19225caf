"""The verdicts on this paper: its claims as rules, and the ledger that applies them to records."""
