"""What editors ask of a program: a language server over pure functions of an `Analysis`."""
