"""From an nn.Module to a graph: torch.export, and passes."""
