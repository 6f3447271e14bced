"""How providers take batches: requests by the file, answered within a day, at a price of their own."""
