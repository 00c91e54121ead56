"""What is measured but is no claim: the book's own networks, the cost of a step, the ladder."""
