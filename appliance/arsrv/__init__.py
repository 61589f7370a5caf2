"""ARSRV, the integration server: takes messages in, runs their flow stage by stage, delivers them."""
