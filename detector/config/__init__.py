"""What a person may say: settings, their values, and how they are read."""
