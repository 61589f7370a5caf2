"""What the image builder reads, and what its scripts share."""
