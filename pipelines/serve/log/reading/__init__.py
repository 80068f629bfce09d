"""The log as others read it: windows of decisions, statistics, and what became of a challenger."""
