"""What happens on the box before anybody is logged in: the seed, the machine's identity, the local screen."""
