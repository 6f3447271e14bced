"""Money set aside before it is spent: one promise (base), three keepers (memory, sqlite, redis)."""
