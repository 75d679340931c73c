"""Transfer learning: what is frozen, and what goes on learning."""
