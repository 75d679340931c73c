"""Files: atomic writes, and reads of untrusted contents."""
