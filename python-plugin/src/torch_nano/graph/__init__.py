"""Models as plain data: capture and passes."""
