"""What the gateway keeps so that it can learn from its own traffic, and finds again after a restart."""
