"""Inspection of the user's nn.Module: names, modes, frozen parts, outputs, and why it fails."""
