"""The SQL schema and what is asked of it.  The ledger decides; SQL remembers."""
