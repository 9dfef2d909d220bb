"""What writes and tests the documents."""
