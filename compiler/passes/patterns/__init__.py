"""What `recognise` has a better form for: a pattern a file."""
