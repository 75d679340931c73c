"""What a device can learn with."""
