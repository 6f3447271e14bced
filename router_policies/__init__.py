"""One file per policy.  None imports another; only `gateway.types` and `gateway.plan`."""
