"""The HTTP surface: what clients and administrators see."""
