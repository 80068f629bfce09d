"""What came in since the last promotion: logged decisions, their groups, new labels and their names."""
