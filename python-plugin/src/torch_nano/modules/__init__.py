"""What is asked of the user's own nn.Module: names, modes, frozen parts, outputs, why it fails."""
