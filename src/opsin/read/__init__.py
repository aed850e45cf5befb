"""Read: what a cropped word or a line says."""
