"""Records of a device's learning, and their replay."""
