"""The operators for use by hand and in training, through torch.library."""
