"""Channel-directed gradients."""
