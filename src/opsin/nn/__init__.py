"""Layers that networks are built from, and what a network costs."""
