"""Classification: what is in the image, and how sure the network is."""
