"""Other training loops: modules that need a package which torch-nano itself does not."""
