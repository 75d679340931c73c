"""The training loop: fit and its parts."""
