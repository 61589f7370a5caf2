"""What the consoles share: the session gate, the page frame, and the server around them."""
