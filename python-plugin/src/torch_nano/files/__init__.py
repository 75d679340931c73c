"""Files, written as a whole and read with suspicion."""
