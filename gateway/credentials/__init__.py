"""How a provider is convinced that it is us, where a key in a header does not do; see `base`."""
