"""Custom torch operators, through torch.library: for direct use and for training."""
