"""Gates that are fitted on validate rows: the deferral head, and curves over a few signals."""
