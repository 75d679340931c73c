"""The page of `torch-nano live`: predictions of a device as they come, and buttons that teach it."""
