"""The prompt-cache doctor: what keeps prompt caches from being read, where that stands, and what it costs."""
