"""A made-in-code data set and the pictures of the five-minute demonstration."""
