"""Configurations of other gateways as ours.  `base` states the promise; one package for each that can be read."""
