"""What an operator should hear of without looking: found beside the requests, told once."""
