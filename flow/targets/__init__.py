"""Ways to deliver: what a target answers becomes a verdict."""
