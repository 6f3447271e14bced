"""What answers say, beside each other: for policies that judge them, and for whoever compares them later.  Pure."""
