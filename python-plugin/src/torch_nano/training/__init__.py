"""The training loop: fit, and what it needs."""
