"""The equations, nothing else: per-example functions without parameters or configuration; callers vmap."""
