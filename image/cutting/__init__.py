"""What is cut out of the root tree for a small start: the box's initrd, and what a virtual machine starts from."""
