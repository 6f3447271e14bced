"""Cheap first: a cheap answer is judged, and the strong model is asked only where it is not good enough."""

from router_policies.cascade.policy import Cascade

__all__ = ["Cascade"]
