"""Classification: one class of many, or any number of classes at once."""
