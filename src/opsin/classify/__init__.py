"""Classification: what is in the picture, and how sure the network is."""
