"""Detection: networks that say what is where, their training and their evaluation."""
