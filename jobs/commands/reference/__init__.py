"""What a configuration can say."""
