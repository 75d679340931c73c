"""Whether a model fits a chip, before anything is compiled."""
