"""The SQL database: what happened (records) and what administrators made (tenants, keys, budgets).

SQLite or PostgreSQL. Nothing on the path of a request waits for it.
"""
