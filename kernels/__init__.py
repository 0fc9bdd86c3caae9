"""Fused operations, each with its plain-jnp reference beside it."""
