"""Networks and trainings, explained: what they cost, how far they see, what they need, and what is wrong with them."""
