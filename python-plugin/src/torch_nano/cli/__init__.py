"""The command torch-nano."""
