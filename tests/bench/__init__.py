"""Measures: what the appliance costs and how fast it is, side by side with what a user would pick instead."""
