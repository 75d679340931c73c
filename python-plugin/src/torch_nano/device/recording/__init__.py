"""Records of what a device was told and answered, and their replay."""
