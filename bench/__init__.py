"""Benchmarks: beside others (`compare`), from within (`inside`), and of the ledger alone (`ledger`)."""
