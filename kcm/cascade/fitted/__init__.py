"""The gate that is fitted on validate rows: curves over a few signals."""
